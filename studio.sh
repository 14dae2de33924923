#!/usr/bin/env bash
# Starts the studio on Linux and macOS without make: finds the graphics card, installs the torch build that fits it
# into .venv (once), and opens the page. `./studio.sh --detect` only tells what it found; other flags go to app.py.
# TORCH_INDEX=ADDRESS takes torch from that package index instead (empty: from pip's own).
set -euo pipefail

BUILDS=https://download.pytorch.org/whl

# card_build CAPABILITY DRIVER: the CUDA build of torch 2.13 for an NVIDIA card, or why there is none.
# Its builds are cu126 (compute capability 5.0 to 9.0) and cu130 (7.5 and newer, driver 580 and newer); cu132 is
# experimental. Within CUDA 12 any driver from 525 on runs cu126. These facts are from PyTorch's release notes; none was
# tried on every card.
card_build() {
  local capability=$((10#${1%%.*} * 10 + 10#${1#*.})) driver=${2%%.*}
  if ((capability >= 75 && driver >= 580)); then echo cu130
  elif ((capability >= 100)); then echo "cpu (this card needs driver 580 or newer)"
  elif ((capability >= 50 && driver >= 525)); then echo cu126
  elif ((capability >= 50)); then echo "cpu (CUDA needs driver 525 or newer)"
  else echo "cpu (torch needs compute capability 5.0 or newer)"; fi
}

# Prints "FOUND -> BUILD" with an optional reason in brackets; BUILD is cu126, cu130, rocm7.2, mps or cpu.
detect() {
  local card name capability driver gfx
  if [[ $(uname -s) == Darwin ]]; then
    if [[ $(uname -m) == arm64 ]]; then echo "Apple silicon -> mps"; return; fi
    echo "This Mac has an Intel processor, for which torch 2.13 is not built; an Apple silicon Mac is needed." >&2
    return 1
  fi
  if command -v nvidia-smi >/dev/null; then
    # Of several cards the most capable one decides.
    card=$(nvidia-smi --query-gpu=compute_cap,driver_version,name --format=csv,noheader 2>/dev/null | sort -t, -k1,1 -V | tail -n 1) || card=""
    IFS=, read -r capability driver name <<<"$card"
    capability=${capability// /} driver=${driver// /} name=${name# } name=${name#NVIDIA }
    if [[ $capability =~ ^[0-9]+\.[0-9]+$ && $driver =~ ^[0-9]+ ]]; then
      echo "NVIDIA $name, compute capability $capability, driver $driver -> $(card_build "$capability" "$driver")"
    else
      echo "NVIDIA card whose driver does not answer -> cpu (install or update the NVIDIA driver)"
    fi
    return
  fi
  gfx=$(PATH=$PATH:/opt/rocm/bin rocminfo 2>/dev/null | grep -oE -m 1 'gfx[0-9a-f]{3,}') || gfx=""
  if [[ -n $gfx ]]; then echo "AMD $gfx with ROCm -> rocm7.2"
  elif lspci 2>/dev/null | grep -E 'VGA|3D|Display' | grep -qE 'AMD|ATI'; then echo "AMD card without ROCm -> cpu (install ROCm to use it)"
  else echo "no graphics card -> cpu"; fi
}

find_python() {
  local candidate
  for candidate in python3 python3.12 python3.11 python3.13 python3.14; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "Python 3.11, 3.12, 3.13 or 3.14 is needed and none was found." >&2
  return 1
}

# install BUILD: torch first, from the index that has this build, then the rest of the pins.
install() {
  local python=.venv/bin/python torch stamp=.venv/.installed-user source
  source=${TORCH_INDEX-$BUILDS/$1}
  torch=$(grep -E '^torch==' requirements.txt)
  if [[ ! -x $python ]]; then "$(find_python)" -m venv .venv; fi
  if [[ $1 == mps ]]; then source=""; fi
  if [[ -f $stamp && ! requirements.txt -nt $stamp && $(<"$stamp") == "$source" ]]; then return; fi
  echo "Installing into .venv (once, some minutes) ..."
  if [[ -n $source ]]; then
    # The full version, with its build, so that a changed card also changes an installed torch.
    if [[ -z ${TORCH_INDEX+set} ]]; then torch=$torch+$1; fi
    "$python" -m pip install --disable-pip-version-check --quiet --index-url "$source" "$torch"
  fi
  "$python" -m pip install --disable-pip-version-check --quiet -r requirements.txt
  echo "$source" >"$stamp"
}

main() {
  local line build
  cd "$(dirname "${BASH_SOURCE[0]}")"
  line=$(detect)
  echo "$line"
  if [[ ${1-} == --detect ]]; then return; fi
  build=${line##*-> }
  install "${build%% *}"
  exec .venv/bin/python app.py "$@"
}

main "$@"
