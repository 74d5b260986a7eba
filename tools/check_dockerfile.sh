#!/bin/sh
# Build the Dockerfile's images without a daemon, and run them: as root, on Debian, with buildah.
#
# The base image is made here from Debian's own packages (debootstrap) under the name that the
# Dockerfile asks for, so that no image registry is needed; its Python is then Debian's, not the
# one of the official image.  What this machine's pip and TLS are configured with goes into it, too.
# Commands run in a chroot (`--isolation chroot`) under buildah's default seccomp profile, which
# refuses io_uring with ENOSYS; the same image must then work on the pread engine, and on io_uring
# under docker/seccomp-uringblob.json.
#
# Usage: check_dockerfile.sh [test]      "test" runs the test image's whole command, not a part of it
set -eu
cd "$(dirname "$0")/.."

say() { printf 'check-dockerfile: %s\n' "$*"; }

for tool in buildah debootstrap; do
    if ! command -v "$tool" >/dev/null 2>&1; then
        say "$tool is missing: apt-get install buildah debootstrap"
        exit 1
    fi
done
[ "$(id -u)" -eq 0 ] || { say "needs root"; exit 1; }

# Everything below runs in a mount and a PID namespace of its own.  buildah leaves its mounts behind
# when it is interrupted; when this namespace's first process dies, so do all others and every
# mount, and what is then left is a plain directory that can be removed without crossing into /sys.
if [ "${CHECK_DOCKERFILE_SCRATCH:-}" = "" ]; then
    CHECK_DOCKERFILE_SCRATCH=$(mktemp -d -p /var/tmp)
    export CHECK_DOCKERFILE_SCRATCH
    inside=
    # unshare blocks SIGTERM; SIGKILL takes its child along.
    # shellcheck disable=SC2317 # the trap calls it
    end() {
        [ -n "$inside" ] || return 0
        kill -KILL "$inside" 2>/dev/null || :
        wait "$inside" 2>/dev/null || :
    }
    trap 'end; rm -rf --one-file-system "$CHECK_DOCKERFILE_SCRATCH"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    unshare --mount --pid --fork --kill-child --mount-proc tools/check_dockerfile.sh "$@" &
    inside=$!
    wait "$inside" && status=0 || status=$?
    inside=
    exit "$status"
fi

scratch=$CHECK_DOCKERFILE_SCRATCH
# buildah's temporary directories, too, are removed with the rest.
export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot TMPDIR="$scratch"
buildah() { command buildah --root "$scratch/store" --runroot "$scratch/run" "$@"; }

base=docker.io/library/python:local-slim-bookworm
root="$scratch/root"
say "making $base from Debian's packages"
debootstrap --variant=minbase --include=python3,python3-dev,python3-venv,python3-pip,ca-certificates \
    bookworm "$root" >"$scratch/debootstrap.log"
# The official image's Python is `python`, and its pip installs into it.
ln -s python3 "$root/usr/bin/python"
rm -f "$root"/usr/lib/python3*/EXTERNALLY-MANAGED
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
[ ! -e /etc/pip.conf ] || cp /etc/pip.conf "$root/etc/pip.conf"

container=$(buildah from scratch)
buildah copy -q "$container" "$root" / >/dev/null
buildah config --cmd python3 "$container"
buildah commit -q --rm "$container" "$base" >/dev/null
rm -rf "$root"

build() { # target tag
    say "building target $1"
    buildah bud -q --layers --pull-never --build-arg PYTHON=local --target "$1" -t "$2" . >/dev/null
}

run() { # seccomp-profile image command...
    container=$(buildah from --pull-never ${1:+--security-opt "seccomp=$1"} "$2")
    shift 2
    buildah run "$container" -- "$@"
    buildah rm "$container" >/dev/null
}

build runtime uringblob
say "runtime image: $(buildah images --format '{{.Size}}' uringblob)"
probe='
import os, sys
from uringblob import BlobGuid, FileBlobStore
assert os.getuid() != 0, "the runtime image runs as root"
with FileBlobStore.open("probe.blobs", page_size=4096) as store:
    guid = BlobGuid.random()
    store.commit([(guid, bytes(4096))])
    stats = store.stats()
    print("user", os.getuid(), "in", os.getcwd(), "-", stats.engine, "-", stats.engine_reason)
    assert stats.engine == sys.argv[1], f"not {sys.argv[1]}"
os.unlink("probe.blobs")
'
allowed=$PWD/docker/seccomp-uringblob.json
say "under the default profile:"
run '' uringblob python -c "$probe" pread
say "under $allowed:"
run "$allowed" uringblob python -c "$probe" io_uring

build test uringblob-test
set -- "${1:-}" python -m pytest -q -p no:cacheprovider --disable-warnings
if [ "$1" = test ]; then
    shift
    run "$allowed" uringblob-test "$@" -n 3 --dist worksteal
else
    shift
    run "$allowed" uringblob-test "$@" tests/api/test_traits.py tests/ring tests/behaviour/test_refused.py
fi
say "all of it works"
