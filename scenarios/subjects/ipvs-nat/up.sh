# The virtual service's address is this machine's.
ip -{{ 4 if family == "v4" else 6 }} route add local {{ original.ip }} dev lo table local
ipvsadm -A -{{ "t" if protocol == "tcp" else "u" }} {{ original.socket }} -s rr
ipvsadm -a -{{ "t" if protocol == "tcp" else "u" }} {{ original.socket }} -r {{ upstream.socket }} -m
