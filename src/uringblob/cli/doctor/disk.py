"""The directory: its file system, its device, and what a real test file in it can do."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import stat
import tempfile
from io import FileIO
from pathlib import Path
from typing import Final

from uringblob import _native
from uringblob.buffers.slab import Slab
from uringblob.cli.doctor.facts import CheckResult, Level
from uringblob.cli.doctor.machine import read_or_empty
from uringblob.cli.doctor.smoke_test import PREFIX
from uringblob.cli.doctor.uring import answer_text
from uringblob.engines.copy_on_write import make_no_cow, why_copied
from uringblob.engines.direct import enable_direct
from uringblob.errors import encodable, errno_name
from uringblob.ring import Ring, SqeFlags
from uringblob.units import BUF_ALIGN

_STORE_MAGIC: Final = b"uringblb"
#: Directory entries that are searched for stores.
_ENTRIES_MAX: Final = 256


def check_file_system(directory: str, mountinfo: Path = Path("/proc/self/mountinfo")) -> CheckResult:
    """Type, mount options and free space of the file system."""
    facts = {"directory": directory, **_rights(directory)}
    try:
        room = os.statvfs(directory)
    except OSError as error:
        return CheckResult(f"{encodable(directory)}: {error.strerror}", Level.BAD, facts)
    free = room.f_bavail * room.f_frsize
    kind, point, options = find_mount(os.path.realpath(directory), mountinfo) or ("unknown", "?", "")
    text = f"{kind} at {point} ({options}); {free / 2**30:.1f} GiB free"
    facts |= {"mount_point": point, "file_system": kind}
    detail = {"kind": kind, "mount_point": point, "options": options.split(","), "free_bytes": free}
    return CheckResult(text, Level.GOOD if free > 64 << 20 else Level.NOTE, facts, detail)


def _rights(directory: str) -> dict[str, object]:
    """Return what this user may do about a directory that is unusable, and which other one is usable."""
    places = [os.path.expanduser("~"), "/var/tmp", tempfile.gettempdir()]  # noqa: S108 - only named
    usable = os.R_OK | os.W_OK | os.X_OK
    facts: dict[str, object] = {"open_place": next((p for p in places if os.access(p, usable)), places[-1])}
    try:
        status = os.stat(directory)
    except FileNotFoundError:
        above = os.path.dirname(os.path.abspath(directory))
        while not os.path.exists(above):
            above = os.path.dirname(above)
        facts["can_be_made"] = os.path.isdir(above) and os.access(above, os.W_OK | os.X_OK)
    except OSError:
        pass  # not even its owner can be read
    else:
        closed = status.st_mode & stat.S_IRWXU != stat.S_IRWXU
        facts["own_and_closed"] = status.st_uid == os.geteuid() and closed
    return facts


def find_mount(path: str, mountinfo: Path) -> tuple[str, str, str] | None:
    """Return type, mount point and options of the mount that ``path`` lies on."""
    best: tuple[str, str, str] | None = None
    with contextlib.suppress(OSError):  # there is no /proc here: the mount is unknown
        for line in mountinfo.read_text("utf-8", "replace").splitlines():
            left, _, right = line.partition(" - ")
            fields, tail = left.split(), right.split()
            point = re.sub(r"\\(\d{3})", lambda octal: chr(int(octal.group(1), 8)), fields[4])
            inside = path == point or path.startswith(point.rstrip("/") + "/")
            # Of two mounts at one place the later one covers the other.
            if inside and (best is None or len(point) >= len(best[1])):
                options = ",".join([fields[5], *tail[2:3]]).split(",")
                best = (tail[0], point, ",".join(dict.fromkeys(options)))
    return best


def check_device(directory: str, sys_block: Path = Path("/sys/dev/block")) -> CheckResult:
    """Whether the device has a write cache to flush, and FUA."""
    number = os.stat(directory).st_dev
    device = (sys_block / f"{os.major(number)}:{os.minor(number)}").resolve()
    # A partition's queue is its disk's.
    # Not Path.is_dir, which raises where podman masks this part of /sys.
    queues = [place / "queue" for place in (device, device.parent) if os.path.isdir(place / "queue")]
    if not queues:
        masked = os.path.exists(sys_block) and not os.access(sys_block, os.X_OK)
        closed = f"{sys_block} is closed to this user, as in podman's containers"
        return CheckResult(closed if masked else "no block device to be seen behind it", Level.NOTE)
    cache, fua = (read_or_empty(queues[0] / name) or "unknown" for name in ("write_cache", "fua"))
    flush = "flushes reach its cache" if cache == "write back" else "says it needs no flush"
    text = f"{device.name}: {cache}, {flush}; FUA {'yes' if fua == '1' else 'no'}"
    return CheckResult(text, detail={"device": device.name, "write_cache": cache, "fua": fua == "1"})


def _test_file(directory: str) -> FileIO:
    # Without a name where the file system supports that: a killed doctor leaves nothing.
    return tempfile.TemporaryFile(prefix=PREFIX, dir=directory, buffering=0)


def check_direct(directory: str) -> CheckResult:
    """O_DIRECT, proved by real transfers, and the alignment that it needs."""
    try:
        with _test_file(directory) as file:
            file.write(bytes(BUF_ALIGN))
            direct = enable_direct(file.fileno(), os.path.join(directory, PREFIX), read_only=False)
    except OSError as error:
        text = f"the test file: {errno_name(error.errno or 0)}"
        return CheckResult(text, Level.BAD, {"direct": False, "direct_reason": text})
    text = f"yes; memory aligned to {direct.memory_align} bytes" if direct.on else f"no: {direct.reason}"
    facts = {"direct": direct.on, "direct_reason": direct.reason}
    return CheckResult(text, Level.GOOD if direct.on else Level.NOTE, facts)


def check_overwriting(directory: str) -> CheckResult:
    """Whether a new store would be overwritten in place, and whether the stores that are there are."""
    with _test_file(directory) as file:
        make_no_cow(file.fileno())
        file.write(bytes(BUF_ALIGN))
        why = why_copied(file.fileno())
    if why:
        facts = {"copied": directory, "copied_why": why}
        return CheckResult(f"takes new room: {why}", Level.NOTE, facts)
    for path in _stores(directory):
        # A store that is gone by now, or that this user may not read, says nothing of its directory.
        with contextlib.suppress(OSError), open(path, "rb", buffering=0) as store:
            why = why_copied(store.fileno())
            if why:
                text = f"new stores are overwritten in place; {path} is not: {why}"
                return CheckResult(text, Level.NOTE, {"copied": path, "copied_why": why})
    return CheckResult("in place, as far as the file system tells")


def _stores(directory: str) -> list[str]:
    found = []
    with os.scandir(directory) as entries:
        for entry in itertools.islice(entries, _ENTRIES_MAX):
            with contextlib.suppress(OSError):  # gone by now, or not this user's to read
                if entry.is_file(follow_symlinks=False):
                    with open(entry.path, "rb", buffering=0) as file:
                        if file.read(len(_STORE_MAGIC)) == _STORE_MAGIC:
                            found.append(entry.path)
    return sorted(found)


def check_fixed_io(directory: str) -> CheckResult:
    """A fixed write, an fsync and a fixed read of a registered file; the bytes are compared."""
    if _native.lib is None:
        return CheckResult("not tried: no extension", Level.NOTE)
    with _test_file(directory) as file, contextlib.closing(Ring(8)) as ring:
        ring.register_files([file.fileno()])
        slab = Slab(BUF_ALIGN, 2)
        index = ring.register_slab(slab)
        out, back = slab.frame(0, index), slab.frame(1, index)
        out.view[:] = os.urandom(BUF_ALIGN)
        flags = SqeFlags.FIXED_FILE
        results = {
            "write": ring.wait(ring.write_fixed(0, 0, out, flags=flags)),
            "fsync": ring.wait(ring.fsync(0, flags=flags)),
            "read": ring.wait(ring.read_fixed(0, 0, back, flags=flags)),
        }
        same = out.view == back.view
    words = [f"{step} {answer_text(number)}" for step, number in results.items()]
    level = Level.GOOD if same and all(number >= 0 for number in results.values()) else Level.BAD
    return CheckResult(", ".join([*words, "same bytes" if same else "other bytes"]), level)
