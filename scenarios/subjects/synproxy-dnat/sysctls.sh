echo 0 >/proc/sys/net/netfilter/nf_conntrack_tcp_loose
