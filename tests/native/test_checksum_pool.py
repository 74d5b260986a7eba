"""Checksums of many frames at once: the helper threads, their callers, and forked children."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import xxhash

from uringblob import _native
from uringblob.buffers.checksum import frame_checksum, frame_checksums
from uringblob.buffers.iobuf import IoBuffer, address_of, ffi

NATIVE = Path(__file__).resolve().parents[2] / "src" / "uringblob" / "_native"
HERE = Path(__file__).resolve().parent
DATA = os.urandom(1 << 22)
THREAD_NAME = "uringblob-xxh3"

MEMORY = ffi.from_buffer("char[]", DATA)
VIEW = memoryview(DATA)


def frame(start, length):
    return IoBuffer(VIEW[start : start + length], address_of(MEMORY) + start, length)


def want(frames):
    return [xxhash.xxh3_64_intdigest(each.view) for each in frames]


SETS = {
    "none": [],
    "nothing": [frame(0, 0)] * 5,
    "one": [frame(4096, 524288)],
    "two": [frame(0, 524288), frame(524288, 524288)],
    "small": [frame(4096 * n, 4096) for n in range(15)],
    "pages": [frame(4096 * n, 4096) for n in range(1000)],
    "odd": [frame(n * 37, n * n % 70000) for n in range(300)],
    "one large": [frame(0, 3 << 20), *(frame(n, n) for n in range(40))],
}


@pytest.fixture
def lib():
    if _native.lib is None:
        pytest.skip(f"n/a: {_native.unavailable_reason}")
    if not _native.lib.ub_has_xxh3():
        pytest.skip("n/a: built without xxhash.h (Debian: libxxhash-dev)")
    return _native.lib


@pytest.fixture
def helpers(lib):
    before = lib.ub_checksum_helpers(-1)
    yield lib.ub_checksum_helpers
    lib.ub_checksum_helpers(before)


def named_threads():
    tasks = [Path("/proc/self/task") / task for task in os.listdir("/proc/self/task")]
    return [task for task in tasks if (task / "comm").read_text().strip() == THREAD_NAME]


def wait_for_threads(count):
    """Return them once there are so many: a thread names itself when it first runs."""
    ends = time.monotonic() + 10
    while len(named_threads()) < count and time.monotonic() < ends:
        time.sleep(0.001)
    return named_threads()


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("frames", SETS)
def test_the_checksums_are_those_of_single_frames(helpers, count, frames):
    helpers(count)
    for _ in range(3):
        assert frame_checksums(SETS[frames]) == want(SETS[frames])


def test_frame_checksums_without_the_extension(monkeypatch):
    monkeypatch.setattr("uringblob.buffers.checksum._lib", None)
    assert frame_checksums(SETS["odd"]) == want(SETS["odd"])


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("length", [0, 4096, 131071, 131072, 524288])
def test_one_frame_of_any_kind(kind, length):
    data = DATA[:length]
    assert frame_checksum(kind(data)) == xxhash.xxh3_64_intdigest(data)
    assert frame_checksum(VIEW[1 : length + 1]) == xxhash.xxh3_64_intdigest(DATA[1 : length + 1])


def test_helpers_are_at_most_three_and_leave_a_processor(helpers):
    possible = min(3, len(os.sched_getaffinity(0)) - 1)
    assert helpers(99) == helpers(-1) == possible
    assert helpers(0) == helpers(-1) == 0
    assert helpers(1) == min(1, possible)


def test_callers_at_the_same_time(helpers):
    helpers(3)
    with ThreadPoolExecutor(4) as pool:
        jobs = [(name, pool.submit(frame_checksums, SETS[name])) for _ in range(40) for name in SETS]
        for name, job in jobs:
            assert job.result() == want(SETS[name]), name


CHILD = """
import json, os, sys, threading, time
sys.path.insert(0, os.environ["HERE"])
from test_checksum_pool import SETS, frame_checksums, named_threads, wait_for_threads, want
from uringblob._native import lib
"""


def child(code, **environment):
    """Run it in a process of its own, whose helpers and processors are its own."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD + code],
        env={**os.environ, "HERE": str(HERE), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_helpers_start_at_first_use_and_block_every_signal(lib):
    code = """
frame_checksums(SETS["two"][:1])
frame_checksums(SETS["small"])
early = len(named_threads())
frame_checksums(SETS["two"])
frame_checksums(SETS["pages"])
found = [(task / "status").read_text() for task in wait_for_threads(lib.ub_checksum_helpers(-1))]
print(json.dumps([early, lib.ub_checksum_helpers(-1), found]))
"""
    early, allowed, found = json.loads(child(code))
    assert early == 0
    assert len(found) == allowed
    for status in found:
        blocked = int(re.search(r"^SigBlk:\s*(\w+)", status, re.MULTILINE).group(1), 16)
        # Not SIGKILL, SIGSTOP and the C library's own, which nobody can block.
        ours = [n for n in signal.valid_signals() if n not in {signal.SIGKILL, signal.SIGSTOP}]
        assert [n for n in ours if not blocked >> (n - 1) & 1] == []


def test_helpers_are_not_pythons(lib):
    code = """
frame_checksums(SETS["pages"])
print(len(sys._current_frames()), threading.active_count())
"""
    assert child(code).split() == ["1", "1"]


def test_turned_off_no_helper_starts(lib):
    code = """
lib.ub_checksum_helpers(0)
assert frame_checksums(SETS["pages"]) == want(SETS["pages"])
assert not named_threads()
"""
    child(code)


def test_one_processor_has_no_helper(lib):
    code = """
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
assert lib.ub_checksum_helpers(-1) == lib.ub_checksum_helpers(3) == 0
assert frame_checksums(SETS["pages"]) == want(SETS["pages"])
"""
    child(code)


def test_a_forked_child_has_helpers_of_its_own(lib):
    """Forked while other threads compute, so that some children inherit a pool in the midst of a call."""
    code = """
right = {name: want(SETS[name]) for name in SETS}
ended = threading.Event()
def load():
    while not ended.is_set():
        assert frame_checksums(SETS["pages"]) == right["pages"]
threads = [threading.Thread(target=load, daemon=True) for _ in range(2)]
for thread in threads:
    thread.start()
for _ in range(20):
    pid = os.fork()
    if not pid:
        fine = not named_threads()
        for _ in range(3):
            fine &= frame_checksums(SETS["pages"]) == right["pages"]
        fine &= len(wait_for_threads(lib.ub_checksum_helpers(-1))) == lib.ub_checksum_helpers(-1)
        os._exit(0 if fine else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
ended.set()
for thread in threads:
    thread.join()
"""
    child(code, PYTHONWARNINGS="ignore")


def test_the_process_ends_while_helpers_compute(lib):
    code = """
threading.Thread(target=lambda: [frame_checksums(SETS["pages"]) for _ in range(10**9)], daemon=True).start()
time.sleep(0.2)
"""
    child(code)


@pytest.fixture
def compiler():
    found = shutil.which("cc") or shutil.which("gcc")
    if found is None or not Path("/usr/include/xxhash.h").exists():
        pytest.skip("no C compiler or no libxxhash-dev here")
    return found


@pytest.mark.one_interpreter
@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
@pytest.mark.parametrize("refused", [0, 1])
def test_under_a_sanitizer(compiler, tmp_path, sanitizer, refused):
    """With threads, and where the system refuses the second one."""
    program = tmp_path / "program"
    flags = ["-std=gnu11", "-O1", "-g", f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all", "-pthread"]
    sources = [HERE / "checksum_pool.c", *sorted(NATIVE.glob("ub_checksum*.c"))]
    built = subprocess.run(
        [compiler, *flags, f"-I{NATIVE}", f"-DREFUSED={refused}", *map(str, sources), "-o", str(program)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "cannot find" in built.stderr:
        pytest.skip(f"n/a: no library of -fsanitize={sanitizer} here")
    assert built.returncode == 0, built.stderr
    # Nothing is allocated that could leak, and the search for leaks needs ptrace.
    options = {"TSAN_OPTIONS": "die_after_fork=0", "ASAN_OPTIONS": "detect_leaks=0"}
    environment = {**os.environ, **options}
    done = subprocess.run([program], env=environment, capture_output=True, text=True, check=False, timeout=60)
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("n/a: this thread sanitizer is older than the kernel's vm.mmap_rnd_bits")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "equal\n"
