"""Run the test suite of the built wheel on every other CPython from 3.10 on that is here.

One interpreter of each minor version, found on PATH and, where there is a pyenv, among its
versions.  Each gets an environment of its own with the wheel in it, never the source tree's
package.  Three run at once: the suite waits for disks and children most of its time.

Usage: other_pythons.py DIST_DIRECTORY [PYTEST_ARGUMENT...]
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence

OLDEST = (3, 10)
AT_ONCE = 3
ASK = (
    "import sys, ensurepip, venv; v = sys.version_info; "
    "print(sys.implementation.name, v.major, v.minor, v.micro, v.releaselevel, sys.executable)"
)


@dataclasses.dataclass(frozen=True)
class Interpreter:
    """One CPython that can make a virtual environment."""

    path: str
    version: tuple[int, int]
    text: str


def candidates() -> Iterator[str]:
    """Yield every path that may be a Python: pyenv's versions first, then PATH."""
    pyenv = shutil.which("pyenv")
    if pyenv:
        listed = subprocess.run([pyenv, "versions", "--bare"], capture_output=True, text=True, check=False)
        root = subprocess.run([pyenv, "root"], capture_output=True, text=True, check=False).stdout.strip()
        for name in listed.stdout.split():
            yield os.path.join(root, "versions", name, "bin", "python3")
    for directory in os.get_exec_path():
        yield from map(str, sorted(pathlib.Path(directory).glob("python3.[0-9]*")))


def interpreter_at(path: str) -> Interpreter | None:
    """Ask the Python at ``path`` what it is; ``None`` if it is too old, broken or no CPython."""
    # Not PYTHONHOME's or this environment's Python, and not whatever pyenv has set as default.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    try:
        answer = subprocess.run(
            [path, "-I", "-c", ASK], capture_output=True, text=True, check=False, timeout=60, env=environment
        )
    except OSError:
        return None
    if answer.returncode != 0:
        return None
    name, major, minor, micro, level, executable = answer.stdout.split(None, 5)
    version = int(major), int(minor)
    if name != "cpython" or version < OLDEST or level != "final":
        return None
    return Interpreter(executable.strip(), version, f"{major}.{minor}.{micro}")


def other_interpreters() -> list[Interpreter]:
    """Return one interpreter of each minor version except this one's, oldest first."""
    found: dict[tuple[int, int], Interpreter] = {}
    for path in candidates():
        interpreter = interpreter_at(path)
        if interpreter and interpreter.version != sys.version_info[:2]:
            found.setdefault(interpreter.version, interpreter)
    return [found[version] for version in sorted(found)]


def versions_promised() -> list[tuple[int, int]]:
    """Return the minor versions that the package says it runs on."""
    page = (pathlib.Path(__file__).resolve().parent.parent / "pyproject.toml").read_text("utf-8")
    found = re.findall(r"Programming Language :: Python :: (\d+)\.(\d+)", page)
    return [(int(major), int(minor)) for major, minor in found]


def versions_absent(interpreters: Sequence[Interpreter]) -> list[tuple[int, int]]:
    """Return the promised versions that neither this interpreter nor one of ``interpreters`` has."""
    here = {sys.version_info[:2], *(interpreter.version for interpreter in interpreters)}
    return [version for version in versions_promised() if version not in here]


def run_suite(interpreter: Interpreter, wheel: pathlib.Path, arguments: list[str]) -> int:
    """Run the suite on ``interpreter``; print its output in one piece when it is done."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"uringblob-{interpreter.text}-", dir="/var/tmp") as scratch:
        python = f"{scratch}/venv/bin/python"
        steps = [
            [interpreter.path, "-m", "venv", f"{scratch}/venv"],
            [python, "-m", "pip", "--disable-pip-version-check", "install", "-q", f"{wheel}[test]"],
            [python, "-m", "pytest", "-p", "no:cacheprovider", f"--basetemp={scratch}/tmp", *arguments],
        ]
        output: list[str] = []
        for step in steps:
            done = subprocess.run(
                step, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
            )
            output.append(done.stdout.decode(errors="replace"))
            if done.returncode != 0:
                break
    seconds = time.monotonic() - started
    verdict = "passed" if done.returncode == 0 else f"FAILED ({done.returncode}): {' '.join(step)}"
    sys.stdout.write(f"--- CPython {interpreter.text} ---\n{''.join(output)}")
    print(f"--- CPython {interpreter.text}: {verdict} in {seconds:.0f} s ---", flush=True)
    return done.returncode


def main() -> int:
    """Run the suite everywhere; non-zero if it failed anywhere."""
    (wheel,) = pathlib.Path(sys.argv[1]).resolve().glob("*.whl")
    interpreters = other_interpreters()
    names = ", ".join(i.text for i in interpreters) or "none here"
    print(f"other CPythons: {names}", flush=True)
    absent = [f"{major}.{minor}" for major, minor in versions_absent(interpreters)]
    if absent:
        print(f"not on this machine, so not tested on it: CPython {', '.join(absent)}", flush=True)
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        results = list(pool.map(lambda i: run_suite(i, wheel, sys.argv[2:]), interpreters))
    return 1 if any(results) else 0


if __name__ == "__main__":
    sys.exit(main())
