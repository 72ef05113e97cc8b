echo before
sysctl -w net.ipv4.no_such_variable=1
echo after
