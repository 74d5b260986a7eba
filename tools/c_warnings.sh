#!/bin/sh
# Compile the C files named on the command line with every warning an error, by gcc and by clang
# where they are installed (at least one must be).
set -eu

[ $# -gt 0 ] || { echo "c-warnings: no C files" >&2; exit 1; }
flags='-std=gnu11 -O2 -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes'
compilers=0
for compiler in gcc clang; do
    command -v "$compiler" >/dev/null 2>&1 || { echo "c-warnings: no $compiler here"; continue; }
    compilers=$((compilers + 1))
    for file in "$@"; do
        # shellcheck disable=SC2086 # a list of flags
        "$compiler" $flags -c -o /dev/null "$file"
        echo "c-warnings: $file is clean under $compiler"
    done
done
[ "$compilers" -gt 0 ] || { echo "c-warnings: neither gcc nor clang is installed" >&2; exit 1; }
