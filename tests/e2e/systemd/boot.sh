#!/bin/bash
# boot.sh CGROUP FOLDER [SOURCE PLACE]…: become a systemd that has this machine's files and nothing else of it.
#
# It is process 1 of namespaces of its own, in CGROUP, on an overlay of / whose upper half is memory: what is
# written there is gone with it. Each SOURCE is at PLACE, read-only. FOLDER is empty; its file `pid` has the
# number of process 1 as seen from outside, once nothing of the outside can be reached any more from in there.
set -euo pipefail

if [ "${BOOTING-}" != inside ]; then
    echo $$ >"$1/cgroup.procs"  # before the namespace of cgroups is made: its root is where we are then
    export BOOTING=inside
    exec unshare --pid --mount --uts --ipc --cgroup --fork --kill-child --propagation private \
        "$BASH" "$0" "$@"
fi
shift

folder=$1
shift
root=$folder/root
exec 3>"$folder/pid"
read -r own_pid _ </proc/self/stat  # this /proc is still that of the outside, and so are its numbers

mkdir "$folder/memory" "$root"
mount -t tmpfs -o mode=755 tmpfs "$folder/memory"
mkdir "$folder/memory/upper" "$folder/memory/work"
mount -t overlay -o "lowerdir=/,upperdir=$folder/memory/upper,workdir=$folder/memory/work" overlay "$root"

mount -t proc proc "$root/proc"
# There is one kernel. Its settings, as a boot would change them, are those of the outside, too.
for name in sys sysrq-trigger irq bus; do
    if [ -e "$root/proc/$name" ]; then
        mount --bind "$root/proc/$name" "$root/proc/$name"
        mount -o remount,bind,ro "$root/proc/$name"
    fi
done
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
for name in dev run tmp; do
    mount -t tmpfs -o mode=755 tmpfs "$root/$name"
done
chmod 1777 "$root/tmp"
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
for name in null zero full random urandom tty; do
    touch "$root/dev/$name"
    mount --bind "/dev/$name" "$root/dev/$name"
done
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"

while [ $# -gt 0 ]; do  # after /tmp: they may be below it
    mkdir -p "$root$2"
    mount --bind "$1" "$root$2"
    mount -o remount,bind,ro "$root$2"
    shift 2
done

# Of what a boot starts, only this. The rest wants devices, changes the kernel or the clock, or takes its time.
rm -rf "$root"/{etc,usr/lib}/systemd/{system/*.wants,system-generators}
early=$root/etc/systemd/system/sysinit.target.wants
mkdir -p "$early" "$root/etc/systemd/journald.conf.d"
ln -s /lib/systemd/system/systemd-journald.service /lib/systemd/system/systemd-tmpfiles-setup.service "$early"
printf '[Journal]\nStorage=volatile\nRateLimitIntervalSec=0\n' >"$root/etc/systemd/journald.conf.d/node.conf"
: >"$root/etc/fstab"
echo node >"$root/etc/hostname"
# Another machine's identity would show its journal.
tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"

cd "$root"
pivot_root . .
umount -l .  # what was / lies on top of what is /
cd /
# As systemd expects it from who starts it: credentials need it.
mount --make-rshared /
echo "$own_pid" >&3
exec 3>&-
exec env -i container=refresh-agent-test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=basic.target
