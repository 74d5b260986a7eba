"""The block device under a directory, and how often it was flushed."""

from __future__ import annotations

import contextlib
import os

#: Flush requests completed: the 16th field of ``/sys/dev/block/*/stat`` (Linux 5.5).
_FLUSHES_FIELD = 15


def device_directory(path: str) -> str:
    """Return the sysfs directory of the device that holds ``path``, or '' where there is none."""
    number = os.stat(path).st_dev
    found = f"/sys/dev/block/{os.major(number)}:{os.minor(number)}"
    return found if os.path.isdir(found) else ""


def read_text(path: str) -> str:
    """Return a small file's text, '' where it cannot be read."""
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        return file.read().strip()
    return ""


def flushes(path: str) -> int | None:
    """Return the count of flushes of the device under ``path``, of all programs; ``None``: not known."""
    directory = device_directory(path)
    fields = read_text(os.path.join(directory, "stat")).split() if directory else []
    return int(fields[_FLUSHES_FIELD]) if len(fields) > _FLUSHES_FIELD else None
