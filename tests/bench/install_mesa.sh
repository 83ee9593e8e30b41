#!/usr/bin/env bash
# `bench compilers` compiles with AMD's compiler in Mesa 25 or newer. Install it where it is missing and we may; else say
# what to install, and end well: the tests that need it are skipped.
set -euo pipefail
wanted=(mesa-vulkan-drivers libvulkan1 spirv-tools)
has_mesa() { dpkg --compare-versions "$(dpkg-query -Wf '${Version}' mesa-vulkan-drivers 2>/dev/null || echo 0)" ge 25; }
command -v dpkg >/dev/null || { echo "no dpkg: install Mesa 25 and spirv-tools yourself" >&2; exit 0; }
has_mesa && command -v spirv-as >/dev/null && exit 0
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null || ! sudo -n true 2>/dev/null; then
    echo "no Mesa 25 found: install it with 'sudo apt-get install ${wanted[*]}'" >&2
    exit 0
  fi
  as_root=(sudo -n)
fi
echo "installing Mesa for the tests of bench compilers"
from=()
. /etc/os-release
if [ "${VERSION_CODENAME:-}" = bookworm ]; then # its own Mesa 22.3 crashes
  list=/etc/apt/sources.list.d/bookworm-backports.list
  echo "deb http://deb.debian.org/debian bookworm-backports main" | "${as_root[@]}" tee "$list" >/dev/null
  from=(-t bookworm-backports)
fi
"${as_root[@]}" apt-get update -qq || true
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${from[@]}" \
  "${wanted[@]}" >/dev/null || echo "could not install ${wanted[*]}: the tests that need them are skipped" >&2
has_mesa || echo "Mesa is older than 25: the tests that need it are skipped" >&2
