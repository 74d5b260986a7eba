#!/bin/sh
# What `make bench` and the benchmark's tests need besides: fio and strace from the system, the peers from pip.
#
# Nothing here is a must: whatever cannot be had is named in one line, and the results list it as missing.
#
# Usage: bench_packages.sh PYTHON      the virtual environment's
set -eu

python=${1:-python3}

say() { printf '%s\n' "uringblob bench set-up: $*" >&2; }

missing=''
for program in fio strace; do
    command -v "$program" >/dev/null 2>&1 || missing="$missing $program"
done
if [ -n "$missing" ]; then
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
        say "installing$missing"
        export DEBIAN_FRONTEND=noninteractive
        # shellcheck disable=SC2086 # a list of names
        { apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing; } </dev/null >/dev/null ||
            say "could not install$missing: what needs it is listed as not measured"
    else
        say "missing:$missing; get them with: sudo apt-get install$missing"
    fi
fi

# `make` has tried the extra `peers` as a whole; here one at a time.
for peer in aiofiles caio lmdb obstore rocksdict uvloop; do
    "$python" -c "import $peer" 2>/dev/null ||
        "$python" -m pip --disable-pip-version-check install --quiet "$peer" 2>/dev/null ||
        say "the peer $peer cannot be installed here: it is listed as such"
done
