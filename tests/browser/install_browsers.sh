#!/usr/bin/env bash
# The browser tests drive Debian's Chromium, and one of them Firefox. Install what is missing where we may; else say what
# to install. Without Firefox its test is skipped.
set -euo pipefail
find_first() {
  for place in "$@"; do
    [ -n "$place" ] && [ -x "$place" ] && return 0
  done
  return 1
}
missing=()
find_first "${CHROMIUM:-}" /usr/bin/chromium /usr/bin/chromium-browser /usr/bin/google-chrome /snap/bin/chromium || missing+=(chromium)
find_first "${FIREFOX:-}" /usr/bin/firefox-esr /usr/bin/firefox /snap/bin/firefox || missing+=(firefox-esr)
[ ${#missing[@]} -eq 0 ] && exit 0
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null || ! sudo -n true 2>/dev/null; then
    [ "${missing[0]}" = chromium ] || exit 0
    echo "no Chromium found: install it with 'sudo apt-get install chromium', or set CHROMIUM to its path" >&2
    exit 2
  fi
  as_root=(sudo -n)
fi
echo "installing ${missing[*]} for the browser tests"
"${as_root[@]}" apt-get update -qq
for package in "${missing[@]}"; do
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" >/dev/null ||
    [ "$package" = firefox-esr ]
done
