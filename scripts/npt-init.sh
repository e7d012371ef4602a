#!/bin/busybox sh
# SPDX-License-Identifier: GPL-3.0-or-later
#
# The first process of the machine that npt-host.sh boots. Loads kvm-amd, makes sure that it uses
# nested paging, runs /npt/command under a time limit and sends two streams out through
# virtio-serial ports: "log", what the command prints, as it comes; and "result", a tar archive whose
# last member, status, proves it complete.
# shellcheck shell=dash

/bin/busybox mkdir -p /proc /sys /dev /tmp /run /root /var/tmp
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root TERM=dumb

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t devpts devpts /dev/pts
ln -sf /proc/self/fd /dev/fd
ln -sf /proc/self/fd/0 /dev/stdin
ln -sf /proc/self/fd/1 /dev/stdout
ln -sf /proc/self/fd/2 /dev/stderr
chmod 1777 /tmp /var/tmp
# A tmpfs holds half of the RAM unless told otherwise; recordings may want more.
mount -o remount,size=85% / 2>/dev/null
ip link set lo up
hostname npt-host

# The time limit of the command in seconds, and the time at which the machine was started.
read -r limit start_time </npt/config

port_named() {
	local dir

	for dir in /sys/class/virtio-ports/*; do
		if [ "$(cat "$dir/name" 2>/dev/null)" = "$1" ]; then
			echo "/dev/${dir##*/}"
			return 0
		fi
	done
	return 1
}

# The driver announces its ports a moment after it is loaded.
wait_for_port() {
	local tries=0

	until port_named "$1"; do
		tries=$((tries + 1))
		[ "$tries" -lt 100 ] || return 1
		usleep 50000
	done
}

# Nothing can be reported any more: the console is all there is. Without a result the harness says
# that the machine died, and shows the console.
die() {
	echo "npt-init: $*" >/dev/console
	poweroff -f
}

modprobe virtio_pci
modprobe virtio_console
log=$(wait_for_port log) || die "there is no virtio-serial port named log"
result=$(wait_for_port result) || die "there is no virtio-serial port named result"
exec >"$log" 2>&1

# The machine has a clock of its own, but a host whose clock is not UTC would show; this is exact to
# the time of the boot.
read -r up _ </proc/uptime
date -u -s "@$((start_time + ${up%.*}))" >/dev/null

status=
refuse() {
	echo "npt-init: $*"
	status=125
}

# Making and closing a VM waits for grace periods of RCU: 17 ms each instead of 40.
echo 1 >/sys/kernel/rcu_expedited

modprobe kvm-amd || refuse "kvm-amd did not load: does this QEMU emulate SVM (-cpu max,svm=on,npt=on)?"
if [ -z "$status" ] && [ ! -c /dev/kvm ]; then
	refuse "kvm-amd is loaded but there is no /dev/kvm"
fi
if [ -z "$status" ] && ! grep -q '^[Y1]' /sys/module/kvm_amd/parameters/npt; then
	refuse "kvm-amd does not use nested paging here, so this would not be a second kind of host"
fi

cd /repo || die "the initramfs holds no /repo"
mkdir -p out
if [ -z "$status" ]; then
	read -r up _ </proc/uptime
	echo "npt-init: /dev/kvm with nested paging is up after $up s"
	# A port can be open only once, and scripts do write to /dev/stderr: a pipe lies between.
	mkfifo /npt/pipe
	cat </npt/pipe &
	cat=$!
	# A session of its own, so that the time limit reaches the command's children too.
	setsid bash /npt/command </dev/null >/npt/pipe 2>&1 &
	child=$!
	(
		sleep "$limit"
		: >/npt/timed-out
		kill -TERM "-$child"
		sleep 5
		kill -KILL "-$child"
	) >/dev/null 2>&1 </dev/null &
	wait "$child"
	status=$?
	# What is still in the pipe must get out; a child left behind must not hold it open for ever.
	kill -KILL "-$child" 2>/dev/null
	(
		sleep 10
		kill "$cat"
	) >/dev/null 2>&1 &
	wait "$cat"
	if [ -e /npt/timed-out ]; then
		echo "npt-init: stopped after $limit s, the time limit"
		status=124
	fi
fi

mkdir /npt/result
dmesg >/npt/result/dmesg
mv out /npt/result/out
echo "$status" >/npt/result/status
tar -C /npt/result -c -f - dmesg out status >"$result" || echo "npt-init: the results did not get out"
poweroff -f
