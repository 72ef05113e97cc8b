ip -{{ 4 if family == "v4" else 6 }} rule add fwmark 1 lookup 100
ip -{{ 4 if family == "v4" else 6 }} route add local default dev lo table 100
