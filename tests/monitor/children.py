"""The order monitor in the processes that tests start: services, commands, kill loops, examples.

Each Python that inherits this process's environment runs ``in_child/sitecustomize.py`` first.  What a
monitor there finds goes into a file of ours at once, line by line, so that it outlives a ``SIGKILL``; the
test during which it arrives fails.  A child that is given another environment must carry these variables
on, or be started with :func:`unwatched` and a reason: see :func:`insist`.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ALARMS = "URINGBLOB_ORDER_ALARMS"
#: "module:function", a context manager that is entered in each child: how tests show that a bug is found there.
PLANTED = "URINGBLOB_PLANTED_BUG"
IN_CHILD = str(Path(__file__).resolve().parent / "in_child")
_STORE, _ALARM = "store", "alarm"
#: What makes a Python ignore its environment or leave ``sitecustomize`` out.
_DEAF = {"-I", "-E", "-S"}


# --- in the parent ------------------------------------------------------------------------------


class Children:
    """What this process knows of those it started."""

    def __init__(self) -> None:
        self._directory = tempfile.mkdtemp(prefix="uringblob-order-")
        self.path = os.path.join(self._directory, "alarms")
        self._read = 0
        #: Stores that children have opened, and which children.
        self.stores = 0
        self.pids: set[int] = set()
        with open(self.path, "wb"):
            pass
        os.chmod(self._directory, 0o755)  # also for those that gave up root
        os.chmod(self.path, 0o666)

    def watch(self) -> None:
        """Have every child watched from now on."""
        os.environ[ALARMS] = self.path
        paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        os.environ["PYTHONPATH"] = os.pathsep.join([IN_CHILD, *(p for p in paths if p and p != IN_CHILD)])

    def take(self) -> list[str]:
        """Return what children's monitors have found since the last call."""
        if os.stat(self.path).st_size == self._read:
            return []
        with open(self.path, encoding="utf-8") as file:
            file.seek(self._read)
            lines = file.read().splitlines()
            self._read = file.tell()
        found = []
        for line in lines:
            pid, kind, what = line.split("\t", 2)
            self.pids.add(int(pid))
            self.stores += kind == _STORE
            if kind == _ALARM:
                found.append(f"in child process {pid}: {what}")
        return found

    def end(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)


def unwatched(environment, reason: str) -> dict[str, str]:
    """Return ``environment`` for a child that cannot be watched, for the reason given."""
    assert reason
    return {**environment, ALARMS: ""}


@contextlib.contextmanager
def switched_off():
    """Children that are started now are not watched."""
    before = os.environ.get(ALARMS)
    os.environ[ALARMS] = ""
    try:
        yield
    finally:
        if before is None:
            del os.environ[ALARMS]
        else:
            os.environ[ALARMS] = before


def insist(report) -> None:
    """Report each Python that is started so that its stores would not be watched."""
    real = subprocess.Popen.__init__

    @functools.wraps(real)
    def init(self, args, *others, **options):
        if why := _why_deaf(args, options.get("env")):
            report(f"a child process is started without the order monitor: {why}: {args}")
        real(self, args, *others, **options)

    subprocess.Popen.__init__ = init


def _why_deaf(args, env) -> str:
    if not isinstance(args, (list, tuple)) or not _is_python(os.fspath(args[0])):
        return ""
    flags = []
    for word in map(os.fspath, args[1:]):
        if not word.startswith("-") or word in {"-c", "-m"}:
            break
        flags.append(word)
    if env is None:
        env = os.environ
    if ALARMS in env and not env[ALARMS]:
        return ""
    if _DEAF.intersection(flags):
        return "its flags say that it heeds no environment"
    if ALARMS not in env or IN_CHILD not in env.get("PYTHONPATH", "").split(os.pathsep):
        return "its environment lacks the parent's variables"
    return ""


def _is_python(program: str) -> bool:
    name = os.path.basename(program)
    return program == sys.executable or name.startswith("python") or name == "uringblob"


# --- in the child -------------------------------------------------------------------------------

#: A context manager that is collected ends.
_planted: list[object] = []


def is_one() -> bool:
    """Whether this process is a child that is watched."""
    return bool(os.environ.get(ALARMS))


def plant() -> None:
    """Plant the bug that the parent has named, if any."""
    if planted := os.environ.get(PLANTED):
        module, _, name = planted.partition(":")
        bug = getattr(importlib.import_module(module), name)()
        bug.__enter__()
        _planted.append(bug)


def tell_alarm(line: str) -> None:
    _tell(_ALARM, line)


def tell_store(path: str) -> None:
    _tell(_STORE, path)


def _tell(kind: str, what: str) -> None:
    """One write, so that lines of several children do not mix; where it fails the child cannot go on."""
    line = f"{os.getpid()}\t{kind}\t{' '.join(what.split())}\n".encode()
    try:
        file = os.open(os.environ[ALARMS], os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            os.write(file, line)
        finally:
            os.close(file)
    except (OSError, KeyError) as error:
        sys.stderr.write(f"order monitor: {kind} {what}, and it cannot be told: {error!r}\n")
        sys.stderr.flush()
        os._exit(70)
