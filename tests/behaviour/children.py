"""Running a function in a process of its own, which may then break whatever it likes there.

``run("behaviour.child_x:function", arguments...)`` starts a new interpreter, so that nothing was
imported, no thread runs and no limit is set before the function says so.  Arguments and result
are JSON; what the function raises is raised here as :class:`ChildFailed`.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
CHILD_SECONDS_MAX = 120


class ChildFailed(Exception):
    pass


class Child:
    """A started child: ``say`` and ``hear`` exchange lines with it, ``result`` waits for its end."""

    def __init__(self, function, *arguments):
        command = [sys.executable, "-W", "error", "-m", "behaviour.children", function, json.dumps(arguments)]
        paths = [str(TESTS), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        environment.pop("URINGBLOB_ENGINE", None)
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def say(self, line=""):
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def hear(self):
        line = self._process.stdout.readline()
        if not line:
            raise ChildFailed(f"the child ended ({self._process.wait()}) before it said anything")
        return json.loads(line)

    def kill(self):
        self._process.kill()
        self._process.wait()

    def rest(self):
        """What a killed child had still said."""
        lines = self._process.stdout.read().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def result(self):
        out, _ = self._process.communicate(timeout=CHILD_SECONDS_MAX)
        if self._process.returncode:
            raise ChildFailed(f"exit status {self._process.returncode}: {out}")
        answer = json.loads(out.splitlines()[-1])
        if "failed" in answer:
            raise ChildFailed(answer["failed"])
        return answer["value"]


def run(function, *arguments):
    with Child(function, *arguments) as child:
        return child.result()


# ---- in the child -----------------------------------------------------------------------------


def tell(what):
    """Send ``what`` to the parent, who is in ``hear``."""
    print(json.dumps(what), flush=True)


def listen():
    """Wait until the parent has called ``say``."""
    return sys.stdin.readline().rstrip("\n")


def main():
    module, _, name = sys.argv[1].partition(":")
    try:
        answer = {"value": getattr(importlib.import_module(module), name)(*json.loads(sys.argv[2]))}
    except Exception:
        answer = {"failed": traceback.format_exc()}
    tell(answer)


if __name__ == "__main__":
    main()
