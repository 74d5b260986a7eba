"""The directory: its file system, its device, and what it does with a real trial file."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import tempfile
from pathlib import Path

from uringblob import _native
from uringblob.buffers.slab import Slab
from uringblob.cli.doctor.check_result import CheckResult, Level
from uringblob.cli.doctor.smoke_test_directory import PREFIX
from uringblob.engines.direct import enable_direct
from uringblob.errors import encodable, errno_name
from uringblob.ring import Ring, SqeFlags
from uringblob.units import BUF_ALIGN


def check_file_system(directory: str, mountinfo: Path = Path("/proc/self/mountinfo")) -> CheckResult:
    """Which file system, with which mount options, and how much room."""
    rights = {"directory": directory, **_rights(directory)}
    try:
        room = os.statvfs(directory)
    except OSError as error:
        text = f"{encodable(directory)}: {error.strerror}"
        return CheckResult("file system", text, Level.BAD, rights)
    free = room.f_bavail * room.f_frsize
    mount = find_mount(os.path.realpath(directory), mountinfo)
    kind, point, options = mount or ("unknown", "?", "")
    text = f"{kind} at {point} ({options}); {free / 2**30:.1f} GiB free"
    detail = {"kind": kind, "mount_point": point, "options": options.split(","), "free_bytes": free}
    level = Level.GOOD if free > 64 << 20 else Level.NOTE
    return CheckResult(
        "file system", text, level, {**rights, "mount_point": point, "file_system": kind}, detail
    )


def _rights(directory: str) -> dict[str, object]:
    """What this user may do about a directory that cannot be used, and where else to go."""
    usable = os.R_OK | os.W_OK | os.X_OK
    places = [os.path.expanduser("~"), "/var/tmp", tempfile.gettempdir()]  # noqa: S108 - only named
    facts: dict[str, object] = {
        "open_place": next((p for p in places if os.access(p, usable)), places[-1]),
    }
    try:
        status = os.stat(directory)
    except FileNotFoundError:
        above = os.path.dirname(os.path.abspath(directory))
        while not os.path.exists(above):
            above = os.path.dirname(above)
        facts["can_be_made"] = os.path.isdir(above) and os.access(above, os.W_OK | os.X_OK)
    except OSError:
        pass  # out of reach, so nothing can be done about it
    else:
        mode = stat.S_IMODE(status.st_mode)
        facts["own_and_closed"] = status.st_uid == os.geteuid() and mode & stat.S_IRWXU != stat.S_IRWXU
    return facts


def find_mount(path: str, mountinfo: Path) -> tuple[str, str, str] | None:
    """Return type, mount point and options of the mount that ``path`` lies on."""
    best: tuple[str, str, str] | None = None
    with contextlib.suppress(OSError):
        for line in mountinfo.read_text("utf-8", "replace").splitlines():
            left, _, right = line.partition(" - ")
            fields, tail = left.split(), right.split()
            point = re.sub(r"\\(\d{3})", lambda octal: chr(int(octal.group(1), 8)), fields[4])
            inside = path == point or path.startswith(point.rstrip("/") + "/")
            # Of two mounts at one place the later one covers the other.
            if inside and (best is None or len(point) >= len(best[1])):
                super_options = tail[2] if len(tail) > 2 else ""
                merged = dict.fromkeys([*fields[5].split(","), *filter(None, super_options.split(","))])
                best = (tail[0], point, ",".join(merged))
    return best


def check_device(directory: str, sys_block: Path = Path("/sys/dev/block")) -> CheckResult:
    """Whether the device has a write cache to flush, and FUA."""
    try:
        number = os.stat(directory).st_dev
    except OSError as error:
        return CheckResult("device", error.strerror or "?", Level.NOTE)
    device = (sys_block / f"{os.major(number)}:{os.minor(number)}").resolve()
    # A partition's queue is its disk's.
    # Not Path.is_dir, which raises where podman masks this part of /sys.
    queue = next(
        (place / "queue" for place in (device, device.parent) if os.path.isdir(place / "queue")), None
    )
    if queue is None and os.path.exists(sys_block) and not os.access(sys_block, os.X_OK):
        return CheckResult(
            "device", f"{sys_block} is closed to this user, as in podman's containers", Level.NOTE
        )
    if queue is None:
        return CheckResult("device", "no block device to be seen behind it", Level.NOTE)
    cache, fua = (_value(queue / name) for name in ("write_cache", "fua"))
    flush = "flushes reach its cache" if cache == "write back" else "says it needs no flush"
    text = f"{device.name}: {cache}, {flush}; FUA {'yes' if fua == '1' else 'no'}"
    return CheckResult(
        "device", text, detail={"device": device.name, "write_cache": cache, "fua": fua == "1"}
    )


def _value(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text("ascii").strip()
    return "unknown"


def check_direct(directory: str) -> CheckResult:
    """O_DIRECT, proved by real transfers, and the alignment that ``statx`` asks for."""
    try:
        # Without a name where the file system has that: a doctor that is killed leaves nothing.
        trial = tempfile.TemporaryFile(prefix=PREFIX, dir=directory, buffering=0)  # noqa: SIM115 - closed below
    except OSError as error:
        text = f"no trial file: {errno_name(error.errno or 0)}"
        return CheckResult("O_DIRECT", text, Level.BAD, {"direct": False, "direct_reason": text})
    with trial:
        try:
            os.write(trial.fileno(), bytes(BUF_ALIGN))
            direct = enable_direct(trial.fileno(), os.path.join(directory, PREFIX), read_only=False)
            align = _asked_alignment(trial.fileno())
        except OSError as error:
            text = f"the trial file: {errno_name(error.errno or 0)}"
            return CheckResult("O_DIRECT", text, Level.BAD, {"direct": False, "direct_reason": text})
    facts = {"direct": direct.on, "direct_reason": direct.reason}
    if not direct.on:
        return CheckResult("O_DIRECT", f"no: {direct.reason}; {align}", Level.NOTE, facts)
    return CheckResult("O_DIRECT", f"yes; {align}", facts=facts)


def _asked_alignment(fd: int) -> str:
    if _native.lib is None or _native.ffi is None:
        return "statx not asked: no extension"
    memory, offset = _native.ffi.new("uint32_t *"), _native.ffi.new("uint32_t *")
    rc = _native.lib.ub_dioalign(fd, memory, offset)
    if rc < 0:
        return f"statx does not tell the alignment ({errno_name(-rc).split()[0]})"
    return f"statx: memory {memory[0]}, offsets {offset[0]} bytes"


def check_fixed_io(directory: str) -> CheckResult:
    """A fixed write, an fsync and a fixed read of a registered file, compared."""
    name = "fixed I/O"
    if _native.lib is None:
        return CheckResult(name, "not tried: no extension", Level.NOTE)
    try:
        with tempfile.TemporaryFile(prefix=PREFIX, dir=directory, buffering=0) as file:
            results, same = _write_sync_read(file.fileno())
    except OSError as error:
        return CheckResult(name, f"not done: {error.strerror or error}", Level.NOTE)
    words = [f"{step} {_result(number)}" for step, number in results.items()]
    level = Level.GOOD if same and all(number >= 0 for number in results.values()) else Level.BAD
    return CheckResult(name, ", ".join([*words, "same bytes" if same else "other bytes"]), level)


def _write_sync_read(fd: int) -> tuple[dict[str, int], bool]:
    ring = Ring(8)
    try:
        ring.register_files([fd])
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
        return results, out.view == back.view
    finally:
        ring.close()


def _result(number: int) -> str:
    return str(number) if number >= 0 else errno_name(-number).split()[0]
