"""Whether stores in the directory are overwritten in place, or each overwriting takes new room."""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile

from uringblob.cli.doctor.check_result import CheckResult, Level
from uringblob.cli.doctor.smoke_test_directory import PREFIX
from uringblob.engines.copy_on_write import make_no_cow, why_copied
from uringblob.errors import errno_name

_MAGIC = b"uringblb"
#: Files of the directory that are looked at; stores do not lie among thousands of others.
_FILES_MAX = 256


def check_overwriting(directory: str) -> CheckResult:
    """A new file, made as a store's would be, and the stores that lie in the directory."""
    name = "overwriting"
    try:
        with tempfile.TemporaryFile(prefix=PREFIX, dir=directory, buffering=0) as trial:
            make_no_cow(trial.fileno())
            os.write(trial.fileno(), bytes(4096))
            new = why_copied(trial.fileno())
    except OSError as error:
        return CheckResult(name, f"no trial file: {errno_name(error.errno or 0)}", Level.NOTE)
    if new:
        return CheckResult(
            name, f"takes new room: {new}", Level.NOTE, {"copied": directory, "copied_why": new}
        )
    for path in _stores(directory):
        with contextlib.suppress(OSError), open(path, "rb", buffering=0) as store:
            why = why_copied(store.fileno())
            if why:
                text = f"new stores are overwritten in place; {path} is not: {why}"
                return CheckResult(name, text, Level.NOTE, {"copied": path, "copied_why": why})
    return CheckResult(name, "in place, as far as the file system tells")


def _stores(directory: str) -> list[str]:
    found = []
    with os.scandir(directory) as entries:
        for entry in itertools.islice(entries, _FILES_MAX):
            with contextlib.suppress(OSError):
                if entry.is_file(follow_symlinks=False) and _begins_as_store(entry.path):
                    found.append(entry.path)
    return sorted(found)


def _begins_as_store(path: str) -> bool:
    with open(path, "rb", buffering=0) as file:
        return file.read(len(_MAGIC)) == _MAGIC
