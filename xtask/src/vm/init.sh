#!/bin/busybox sh
# The first process of the virtual machine: sets it up, runs the parts that /parts names, tells their exit codes in one
# last line and turns the machine off.

/bin/busybox --install -s /bin
# The real programs come before busybox's.
export PATH=/usr/bin:/bin HOME=/tmp RUST_BACKTRACE=0 MAILGUARD_EBPF=/mailguard.bpf.o

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mkdir -p /run/netns /dev/net
for module in /modules/*; do
    insmod "$module" || echo "vm: $module can't be loaded"
done
[ -c /dev/net/tun ] || mknod /dev/net/tun c 10 200
ip link set lo up

codes=
while read -r name command; do
    echo "── vm: $name: $command"
    $command </dev/null
    codes="$codes $name=$?"
done </parts
echo "vm: ended on $(uname -r):$codes"
poweroff -f
