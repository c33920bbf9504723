#!/bin/sh
# Takes the pictures of docs/posture.md: the HTML report about a root directory in headless Chromium, on a desk and on a phone.
#
#   tests/lib/posture_screenshot.sh ROOT [AGENT]
set -eu
tree=$(cd "$(dirname "$0")/../.." && pwd)
root=$(realpath "$1")
agent=$(realpath "${2:-${CARGO_TARGET_DIR:-$tree/target}/release/defender}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The report names the root as it was given.
cd "$(dirname "$root")"
"$agent" posture --root "$(basename "$root")" --policies "$tree/rootfs-overlay/usr/share/defender/policies" \
	--format html --output "$work/report.html" || [ $? -eq 1 ]
take() {
	chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --hide-scrollbars --user-data-dir="$work/profile" \
		--window-size="$2" --screenshot="$tree/docs/$1" "file://$work/report.html" 2>"$work/said" || {
		cat "$work/said" >&2
		exit 1
	}
}
take posture-report.png 1280,900
take posture-report-phone.png 390,900
ls -l "$tree/docs/posture-report.png" "$tree/docs/posture-report-phone.png"
