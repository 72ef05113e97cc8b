mount -t cgroup2 cgroup2 /sys/fs/cgroup
