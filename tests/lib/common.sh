# shellcheck shell=bash
# Shared by tests/run, tests/demo and tests/bench: packages of the build machine, root, steps with elapsed time. To be sourced.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
SECONDS=0

say() {
	printf '\n== %3d:%02d  %s\n' $((SECONDS / 60)) $((SECONDS % 60)) "$*"
}

# The lines of one section of packages.txt.
section() {
	awk -v header="[$1]" '
		{ sub(/#.*/, ""); gsub(/[ \t]+/, " "); sub(/^ /, ""); sub(/ $/, "") }
		/^\[/ { inside = ($0 == header); next }
		inside && $0 != "" { print }
	' "$ROOT/tests/packages.txt"
}

installed() {
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# Of each line `a | b` nothing if one of them is installed, otherwise the first that apt knows.
missing_packages() {
	local name
	for name in "$@"; do
		section "$name"
	done | while read -r line; do
		found='' first=''
		for name in ${line//|/ }; do
			if installed "$name"; then
				found=1
				break
			fi
			if [ -z "$first" ] && apt-cache show "$name" >/dev/null 2>&1; then
				first=$name
			fi
		done
		if [ -z "$found" ]; then
			echo "${first:-${line%% *}}"
		fi
	done
}

# How to become root: nothing to do, sudo, or impossible.
if [ "$(id -u)" -eq 0 ]; then
	SUDO=()
elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || { [ -t 0 ] && sudo -v; }; }; then
	SUDO=(sudo)
else
	SUDO=(false)
fi

need_root() {
	if [ "${SUDO[*]}" = false ]; then
		echo "This needs root (network namespaces, tap devices, files of other users). Run it as root or with sudo:" >&2
		echo "  sudo -E env PATH=\"\$PATH\" $0" >&2
		exit 2
	fi
}

# Installs what the named sections of packages.txt ask for; exits with 2 if that is not allowed.
install_packages() {
	if ! command -v apt-get >/dev/null; then
		echo "Only Debian and Ubuntu are supported: apt-get is missing" >&2
		exit 2
	fi
	if ! command -v cargo >/dev/null; then
		echo "Rust is missing: install it from https://rustup.rs" >&2
		exit 2
	fi
	# Images are made of downloaded packages as well, so the lists have to be there in any case.
	if [ "${SUDO[*]}" != false ] && ! apt-cache show busybox-static >/dev/null 2>&1; then
		say "updating the package lists"
		"${SUDO[@]}" apt-get update -qq
	fi
	local missing
	mapfile -t missing < <(missing_packages "$@")
	if [ "${#missing[@]}" -eq 0 ]; then
		return
	fi
	if [ "${SUDO[*]}" = false ]; then
		echo "System packages are missing. Run this line as root, then this script again:" >&2
		echo "  apt-get update && apt-get install -y --no-install-recommends ${missing[*]}" >&2
		exit 2
	fi
	say "installing ${missing[*]}"
	"${SUDO[@]}" apt-get update -qq
	"${SUDO[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
}

# Installs what is good to have. Ubuntu's chromium is a snap in disguise, which no test can wait for.
install_optional() {
	section optional | while read -r name; do
		if installed "$name" || [ "${SUDO[*]}" = false ] || [ -e /etc/lsb-release ]; then
			continue
		fi
		say "installing $name"
		"${SUDO[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$name" </dev/null ||
			echo "$name cannot be installed: what needs it is skipped"
	done
}

# Runs the harness as root, with the user's Rust, and gives the user back what it wrote.
harness() {
	local status=0
	"${SUDO[@]}" env PATH="$PATH" HOME="$HOME" \
		${CARGO_HOME:+CARGO_HOME="$CARGO_HOME"} ${RUSTUP_HOME:+RUSTUP_HOME="$RUSTUP_HOME"} \
		${CARGO_TARGET_DIR:+CARGO_TARGET_DIR="$CARGO_TARGET_DIR"} \
		${DEFENDER_VALIDATION_ACCEL:+DEFENDER_VALIDATION_ACCEL="$DEFENDER_VALIDATION_ACCEL"} \
		${DEFENDER_VALIDATION_WORK:+DEFENDER_VALIDATION_WORK="$DEFENDER_VALIDATION_WORK"} \
		"$TARGET/debug/defender-validation" "$@" || status=$?
	if [ "${#SUDO[@]}" -gt 0 ]; then
		"${SUDO[@]}" chown -R "$(id -u):$(id -g)" "${DEFENDER_VALIDATION_WORK:-$ROOT/tests/.work}"
	fi
	return "$status"
}
