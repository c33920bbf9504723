# shellcheck shell=sh
# A root directory as if its system ran: to be sourced in a mount and process namespace of its own (unshare -m -p -f).

# Mounts what a running system has, out of reach of everybody else.
live_root() {
	mount --make-rprivate /
	mount -t proc proc "$1/proc"
	mount -t sysfs sysfs "$1/sys"
	mount -t tmpfs tmpfs "$1/run"
	mount --bind /dev "$1/dev"
}
