umount /sys/fs/cgroup
