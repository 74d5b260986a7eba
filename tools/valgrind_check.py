"""``make valgrind``: the C half's own tests under valgrind's memcheck.

Fails if an error, or memory that is definitely lost, has a frame of the extension in its stack; what the
interpreter does by itself is counted and not judged.  ``tools/valgrind.supp`` has cffi's own.
Child processes of the tests, compilers among them, are not followed.

Usage: valgrind_check.py [PYTEST_ARGUMENT...]
"""

from __future__ import annotations

import collections
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET

ROOT = pathlib.Path(__file__).resolve().parent.parent
SUPPRESSIONS = ROOT / "tools" / "valgrind.supp"
TESTS = "tests/native"
#: What every object file of ours has in its name.
OURS = "_uringblob"


def command(report: str, arguments: list[str]) -> list[str]:
    """Return the command line whose errors go into ``report``."""
    return [
        "valgrind",
        "--tool=memcheck",
        "--leak-check=full",
        "--show-leak-kinds=definite",
        "--errors-for-leak-kinds=definite",
        "--num-callers=40",
        f"--suppressions={SUPPRESSIONS}",
        "--xml=yes",
        f"--xml-file={report}",
        sys.executable,
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"),
        *("--timeout", "600"),
        *(arguments or [TESTS]),
    ]


def is_ours(error: ET.Element) -> bool:
    """Tell whether any frame of any of its stacks lies in the extension."""
    return any(OURS in (frame.findtext("obj") or "") for frame in error.iter("frame"))


def told(error: ET.Element) -> str:
    """Return an error with its stacks, as valgrind shows it."""
    what = error.findtext("what") or error.findtext("xwhat/text") or ""
    frames = [
        f"    {frame.findtext('fn') or '???'} ({frame.findtext('file') or frame.findtext('obj') or '?'}"
        f":{frame.findtext('line') or '?'})"
        for frame in error.iter("frame")
    ]
    return "\n".join([f"{error.findtext('kind')}: {what}", *frames])


def main(arguments: list[str]) -> int:
    """Run, judge, print; return the exit code."""
    if shutil.which("valgrind") is None:
        print("valgrind is not here: apt-get install valgrind (tools/system_packages.sh does it as root)")
        return 1
    with tempfile.TemporaryDirectory() as directory:
        report = os.path.join(directory, "report.xml")
        # With the interpreter's own pools, memcheck would see none of its blocks.
        environment = {**os.environ, "PYTHONMALLOC": "malloc"}
        done = subprocess.run(command(report, arguments), cwd=ROOT, env=environment, check=False)
        errors = ET.parse(report).getroot().findall("error")  # noqa: S314 - valgrind's own words
    ours = [error for error in errors if is_ours(error)]
    for error in ours:
        print(told(error))
    others = collections.Counter(
        f"{error.findtext('kind')} in {error.findtext('stack/frame/fn')}"
        for error in errors
        if not is_ours(error)
    )
    print(
        f"valgrind: tests ended with {done.returncode}; {len(ours)} errors with a frame of {OURS}; "
        f"{sum(others.values())} of the interpreter's own, not judged: "
        + ", ".join(f"{count} {what}" for what, count in others.most_common())
    )
    return 1 if ours or done.returncode else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
