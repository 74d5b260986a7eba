#!/bin/sh
# What `make` needs from the system before pip can build the extension.
#
# Looks for each thing itself (a compiler that works, Python.h, liburing.h, xxhash.h, venv), not for package
# names: a Python from pyenv brings its own headers.  As root on Debian or Ubuntu it installs what
# is missing; otherwise it names the packages and the line that gets them.
#
# Usage: system_packages.sh PYTHON      URINGBLOB_EXT=optional: only Python and venv are a must.
#                                     TEST_PACKAGES=1: what some tests use, too.
#                                     VALGRIND=1: valgrind, too, for make valgrind.
set -eu

python=${1:-python3}
ext=${URINGBLOB_EXT:-require}

say() { printf '%s\n' "uringblob set-up: $*" >&2; }

has_compiler() {
    printf 'int main(void) { return 0; }\n' | "${CC:-cc}" -x c -o /dev/null - 2>/dev/null
}

has_header() { # directory-or-empty header
    printf '#include <%s>\n' "$2" | "${CC:-cc}" ${1:+-I"$1"} -x c -E -o /dev/null - 2>/dev/null
}

has_python_headers() {
    has_header "$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')" Python.h
}

has_venv() { "$python" -c 'import ensurepip, venv' 2>/dev/null; }

missing_packages() {
    has_venv || printf ' python3-venv'
    if [ "$ext" = require ]; then
        has_compiler || printf ' gcc libc6-dev'
        has_python_headers || printf ' python3-dev'
        has_header '' liburing.h || printf ' liburing-dev'
        has_header '' xxhash.h || printf ' libxxhash-dev'
    fi
}

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
    say "'$python' is missing or older than Python 3.10; name a newer one: make PYTHON=python3.12 ..."
    exit 1
fi

# Some tests use these where they are: a file system that fails on request, counters seen from outside,
# small file systems to fill up.
test_packages() {
    if [ -n "${TEST_PACKAGES:-}" ]; then
        command -v fusermount3 >/dev/null 2>&1 || printf ' fuse3'
        command -v strace >/dev/null 2>&1 || printf ' strace'
        command -v mkfs.ext4 >/dev/null 2>&1 || printf ' e2fsprogs'
        command -v mkfs.btrfs >/dev/null 2>&1 || printf ' btrfs-progs'
        command -v mkfs.xfs >/dev/null 2>&1 || printf ' xfsprogs'
        command -v setquota >/dev/null 2>&1 || printf ' quota'
    fi
    [ -z "${VALGRIND:-}" ] || command -v valgrind >/dev/null 2>&1 || printf ' valgrind'
}

if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
    wanted=$(test_packages)
    if [ -n "$wanted" ]; then
        say "installing$wanted, for the tests"
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq </dev/null
        # shellcheck disable=SC2086 # a list of names
        apt-get install -y -qq --no-install-recommends $wanted </dev/null ||
            say "not to be had:$wanted; the tests that need them will say so"
    fi
fi

missing=$(missing_packages)
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
    say "installing$missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq </dev/null
    # shellcheck disable=SC2086 # a list of names
    apt-get install -y -qq --no-install-recommends $missing </dev/null
    missing=$(missing_packages)
    [ -n "$missing" ] || exit 0
    say "after installing, '$python' still lacks what these packages give:$missing"
    say "is it a Python that Debian did not build?  Try: make PYTHON=/usr/bin/python3 ..."
    exit 1
fi

say "missing:$missing"
say "get them with: sudo apt-get install$missing"
if has_venv; then
    say "or go on without io_uring, on the pread engine: make URINGBLOB_EXT=optional ..."
fi
exit 1
