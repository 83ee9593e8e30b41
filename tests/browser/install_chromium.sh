#!/usr/bin/env bash
# The browser tests drive Debian's Chromium. Install it where it is missing and we may; else say what to install.
set -euo pipefail
for place in "${CHROMIUM:-}" /usr/bin/chromium /usr/bin/chromium-browser /usr/bin/google-chrome /snap/bin/chromium; do
  [ -n "$place" ] && [ -x "$place" ] && exit 0
done
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null || ! sudo -n true 2>/dev/null; then
    echo "no Chromium found: install it with 'sudo apt-get install chromium', or set CHROMIUM to its path" >&2
    exit 2
  fi
  as_root=(sudo -n)
fi
echo "installing Chromium for the browser tests"
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null
