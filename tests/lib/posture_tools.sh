#!/bin/sh
# Runs OpenSCAP and Lynis over a Debian root, in namespaces of their own: a network of its own with the image's own network
# parameters, and the services the image starts. Leaves openscap.txt and lynis.log in OUT.
#
#   unshare -n -m -p -f posture_tools.sh ROOT DATASTREAM OUT
set -eu
root=$1 datastream=$2 out=$3

# shellcheck source=tests/lib/live_root.sh
. "$(dirname "$0")/live_root.sh"
live_root "$root"
mount -t tmpfs tmpfs "$root/opt"
# What init would mount, as far as the tools ask for it.
options() {
	awk -v point="$1" '$1 !~ /^#/ && $2 == point { print $4 }' "$root/etc/fstab" 2>/dev/null
}
shm=$(options /dev/shm)
mount -t tmpfs -o "${shm:-nosuid,nodev}" tmpfs "$root/dev/shm"
for point in /tmp /var /var/tmp /var/log /var/log/audit /home; do
	if [ -n "$(options "$point")" ]; then
		mkdir -p "$root$point"
		mount --bind "$root$point" "$root$point"
		mount -o "remount,bind,$(options "$point")" "$root$point"
	fi
done
mkdir -p "$root/run/sshd" "$root/opt/lynis/plugins"
ip link set lo up
# Parameters of the network namespace only; those of the kernel are this machine's.
chroot "$root" /sbin/sysctl --system --pattern '^net\.' >/dev/null 2>&1 || true

# OpenSCAP of this machine, with its libraries, inside the root: from outside it could not read kernel parameters.
mkdir -p "$root/opt/openscap/lib"
cp /usr/bin/oscap "$datastream" "$root/opt/openscap/"
for library in $(ldd /usr/bin/oscap | sed -n 's/.* => \(\/[^ ]*\) .*/\1/p'); do
	case $library in
	*/libc.so.* | */libm.so.* | */libdl.so.* | */libpthread.so.*) ;;
	*) cp -L "$library" "$root/opt/openscap/lib/" ;;
	esac
done
mkdir -p "$root/opt/openscap/share"
cp -r /usr/share/openscap/. "$root/opt/openscap/share/"
chroot "$root" /usr/bin/env LD_LIBRARY_PATH=/opt/openscap/lib OSCAP_SCHEMA_PATH=/opt/openscap/share/schemas OSCAP_CPE_PATH=/opt/openscap/share/cpe \
	/opt/openscap/oscap xccdf eval --skip-valid --profile xccdf_org.ssgproject.content_profile_cis_level2_server \
	"/opt/openscap/$(basename "$datastream")" >"$out/openscap.txt" 2>"$out/openscap.err" || true

cp -a /usr/share/lynis/. "$root/opt/lynis/"
cp /usr/sbin/lynis /etc/lynis/default.prf "$root/opt/lynis/"
chroot "$root" /bin/sh -c '
	/usr/sbin/sshd
	/usr/sbin/cron
	/usr/sbin/rsyslogd
	/usr/sbin/chronyd -x
	cd /opt/lynis && ./lynis audit system --quick --no-colors --logfile /opt/lynis.log --report-file /opt/lynis.dat
' >/dev/null 2>"$out/lynis.err" || true
cp "$root/opt/lynis.log" "$out/lynis.log"
