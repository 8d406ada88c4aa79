#!/usr/bin/env bash
# Installs what PVC needs on this machine: the missing Debian packages and the virtual environment.
# Silent and quick (a few milliseconds) when there is nothing to do; safe to repeat.
set -euo pipefail
cd "$(dirname "$0")/.."

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

missing_packages() {
  # dpkg-query prints nothing for a package it has never heard of, so compare names, not lines.
  comm -23 <(grep -v '^#' tools/debian-packages.txt | sort) \
    <(dpkg-query -W -f '${db:Status-Status} ${Package}\n' | awk '$1 == "installed" {print $2}' | sort -u)
}

install_packages() {
  local missing; missing=$(missing_packages)
  [ -n "$missing" ] || return 0
  echo "setup: installing Debian packages:" $missing
  local log; log=$(mktemp)
  # None of these may start a service on a machine that is not ours to change.
  if ! { as_root apt-get update -qq &&
         as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
           apt-get install -y -qq --no-install-recommends $missing; } >"$log" 2>&1; then
    tail -20 "$log" >&2
    echo "setup: apt-get failed (its whole output: $log). Mend the package sources, then run 'make setup' again." >&2
    exit 1
  fi
  rm -f "$log"
}

install_environment() {
  local stamp=.venv/.stamp sum
  sum=$(cat pyproject.toml requirements.lock | sha256sum)
  [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$sum" ] && return 0
  echo "setup: making the virtual environment (.venv)"
  # Debian's own Python, because libvirt's bindings (later rados and rbd) exist only as its packages.
  [ -x .venv/bin/python ] || /usr/bin/python3 -m venv --system-site-packages .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
  echo "$sum" >"$stamp"
}

install_packages
install_environment
