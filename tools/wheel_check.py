"""Install the freshly built wheel into an empty environment and do real I/O with it there.

A wheel can build and still fail at import, or work only because the source tree is near.
So: a new virtual environment in a temporary directory, the wheel alone, isolated mode; and there also
what a newcomer pastes: the code of the README and the quick start, the README's lines for the shell.

Usage: wheel_check.py DIST_DIRECTORY
"""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import zipfile

PROBE = """
import asyncio, os, pathlib, sys
import uringblob
from uringblob import AsyncFileBlobStore, BlobGuid
from uringblob.ring import Ring

here = pathlib.Path(sys.argv[1])
installed = pathlib.Path(uringblob.__file__).resolve()
assert pathlib.Path(sys.prefix).resolve() in installed.parents, f"not the installed package: {installed}"

async def main():
    async with AsyncFileBlobStore.open(here / "probe.blobs", engine="io_uring", page_size=4096) as store:
        guid = BlobGuid.random()
        await store.commit([(guid, os.urandom(1) * 4096)])
        dst = bytearray(4096)
        await store.read_blob(guid, dst)
        stats = store.stats()
        assert stats.engine == "io_uring" and stats.ring_enters > 0 and len(set(dst)) == 1
        print(f"wheel-check: {Ring.__name__} and a store work:", stats.engine, "-", stats.engine_reason)

asyncio.run(main())
"""


ROOT = pathlib.Path(__file__).resolve().parent.parent
#: The page's own lines, between the file that they put and the look at the one that they got.
SHELL = "set -eu; head -c 524288 /dev/urandom > frame.raw\n{lines}\ncmp frame.raw copy.raw"


def blocks(page: str, language: str) -> list[str]:
    """Return the code blocks of a page of the documentation."""
    text = (ROOT / page).read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def paste(python: str, scratch: str) -> None:
    """Run what the pages for newcomers show, as it stands, all in one directory."""
    shown = [block for page in ("README.md", "docs/users/quickstart.md") for block in blocks(page, "python")]
    quiet = subprocess.DEVNULL
    for block in shown:
        subprocess.run([python, "-I", "-W", "error", "-c", block], check=True, cwd=scratch, stdout=quiet)
    (lines,) = (block for block in blocks("README.md", "sh") if "uringblob create" in block)
    path = f"{pathlib.Path(python).parent}{os.pathsep}{os.environ['PATH']}"
    shell = ["sh", "-c", SHELL.format(lines=lines)]
    subprocess.run(shell, check=True, cwd=scratch, env={**os.environ, "PATH": path}, stdout=quiet)
    print(f"wheel-check: {len(shown)} blocks of code and the README's commands work")


def the_wheel(dist: pathlib.Path) -> pathlib.Path:
    """Return the one wheel in ``dist``, which must be an abi3 wheel that holds the extension."""
    (wheel,) = dist.glob("*.whl")
    if "-cp310-abi3-" not in wheel.name:
        sys.exit(f"wheel-check: {wheel.name} is not tagged cp310-abi3")
    if sys.platform == "linux" and "manylinux_" not in wheel.name:
        sys.exit(f"wheel-check: {wheel.name} has no manylinux tag")
    names = zipfile.ZipFile(wheel).namelist()
    extensions = [name for name in names if name.endswith(".so")]
    if not any(".abi3." in name for name in extensions):
        sys.exit(f"wheel-check: {wheel.name} holds no abi3 extension: {extensions}")
    if "uringblob/py.typed" not in names:
        sys.exit(f"wheel-check: {wheel.name} lacks py.typed")
    if strange := [name for name in names if not name.startswith(("uringblob/", "uringblob-"))]:
        sys.exit(f"wheel-check: {wheel.name} holds more than the package: {strange}")
    return wheel


def main() -> None:
    """Check the wheel in the directory named on the command line."""
    wheel = the_wheel(pathlib.Path(sys.argv[1])).resolve()
    # Beside the wheel's file system, not in a RAM disk, where O_DIRECT would go untested.
    with tempfile.TemporaryDirectory(prefix="uringblob-wheel-", dir="/var/tmp") as scratch:
        python = f"{scratch}/venv/bin/python"
        subprocess.run([sys.executable, "-m", "venv", f"{scratch}/venv"], check=True)
        pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        subprocess.run([*pip, str(wheel)], check=True, cwd=scratch)
        subprocess.run([python, "-I", "-c", PROBE, scratch], check=True, cwd=scratch)
        paste(python, scratch)
    print(f"wheel-check: {wheel.name} is good")


if __name__ == "__main__":
    main()
