#!/bin/busybox sh
# The first process of the tiny guest: brings up virtio devices, network, HTTP and a shell.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts
mount -t devpts devpts /dev/pts
while read -r module; do insmod "$module"; done < /etc/modules
ip link set lo up

# The seed, when there is one, names the machine; the module sees its CD-ROM a moment later.
host=tiny
usleep 50000
if [ -b /dev/sr0 ] && mount -t iso9660 -o ro /dev/sr0 /mnt 2> /dev/null; then
    host=$(sed -n 's/^local-hostname: *//p' /mnt/meta-data)
    echo "PVC-TINY SEED instance-id=$(sed -n 's/^instance-id: *//p' /mnt/meta-data)"
    cp /mnt/user-data /www/user-data
    umount /mnt
fi
hostname "${host:-tiny}"
echo "pvc-tiny $(hostname)" > /www/index.html

for path in /sys/class/net/eth*; do [ -e "$path" ] && nic-up "${path##*/}"; done
httpd -p 80 -h /www
acpid -d > /dev/null 2>&1 &
echo "PVC-TINY READY host=$(hostname) kernel=$(uname -r) cpus=$(nproc)" \
    "mem_kib=$(sed -n 's/^MemTotal: *\([0-9]*\).*/\1/p' /proc/meminfo)" \
    "uptime=$(cut -d' ' -f1 /proc/uptime)"
while :; do setsid cttyhack sh; done
