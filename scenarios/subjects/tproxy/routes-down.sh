ip -{{ 4 if family == "v4" else 6 }} route del local default dev lo table 100
ip -{{ 4 if family == "v4" else 6 }} rule del fwmark 1 lookup 100
