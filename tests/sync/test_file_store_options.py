"""The synchronous face over the real core: what the fake one cannot show."""

from __future__ import annotations

import gc
import os
import random
import signal
import subprocess
import sys
import threading

import pytest

from uringblob import BlobGuid, FileBlobStore, StoreLocked

PAGE = 4096
GUID = BlobGuid(bytes(range(16)))
PATIENCE = 60


class Interrupt(BaseException):
    pass


@pytest.fixture
def options(engine):
    return {"engine": engine, "page_size": PAGE}


def frame(number):
    return number.to_bytes(8, "little") * (PAGE // 8)


def read(store, guid=GUID):
    into = bytearray(PAGE)
    store.read_blob(guid, into)
    return bytes(into)


def test_a_lease_may_be_left_by_an_error(store_path, options):
    with FileBlobStore.open(store_path, **options) as store:
        with pytest.raises(KeyError), store.alloc_blob_buf_uninit() as buf:
            store.read_blob(GUID, buf)
        assert store.stats().buffers_leased == 0


def test_its_path_is_the_files_whatever_led_to_it(store_path, disk_dir, options):
    link = disk_dir / "link"
    link.symlink_to(store_path)
    with FileBlobStore.open(link, **options) as store:
        assert store.path == os.path.realpath(store_path)
    assert store.path == os.path.realpath(store_path), "also when it is closed"


def test_collected_while_open_it_lets_go_of_the_file(store_path, options):
    store = FileBlobStore.open(store_path, **options)
    store.commit([(GUID, frame(1))])
    thread = store._handle._loop.thread
    with pytest.warns(ResourceWarning):
        del store
        gc.collect()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    with FileBlobStore.open(store_path, **options) as store:
        assert read(store) == frame(1)


def test_a_thousand_short_lived_threads_beside_commits(store_path, options):
    with FileBlobStore.open(store_path, **options) as store:
        done = threading.Event()
        errors = []

        def commit():
            number = 0
            while not done.is_set():
                number += 1
                try:
                    store.commit([(GUID, frame(number))])
                except BaseException as error:
                    errors.append(error)

        committers = [threading.Thread(target=commit) for _ in range(2)]
        for thread in committers:
            thread.start()
        names = [BlobGuid.random() for _ in range(1000)]
        for at in range(0, 1000, 50):
            batch = [
                threading.Thread(target=store.write_blob, args=(name, frame(at)))
                for name in names[at : at + 50]
            ]
            for thread in batch:
                thread.start()
            for thread in batch:
                thread.join()
        done.set()
        for thread in committers:
            thread.join()
        assert errors == []
        assert set(store.list_blobs()) == {GUID, *names}


@pytest.mark.untraced("its handler raises at any moment")
def test_a_storm_of_raising_handlers(store_path, options):
    armed = False
    hits = 0

    def handle(number, frame):
        nonlocal armed, hits
        if armed:
            armed = False
            hits += 1
            raise Interrupt

    dice = random.Random(4711)
    before = signal.signal(signal.SIGALRM, handle)
    try:
        with FileBlobStore.open(store_path, **options) as store:
            store.commit([(GUID, frame(0))])
            last = 0
            for n in range(1, 300):
                signal.setitimer(signal.ITIMER_REAL, dice.uniform(1e-6, 1e-3))
                try:
                    armed = True
                    store.commit([(GUID, frame(n))])
                    armed = False
                    last = n
                except Interrupt:
                    seen = read(store)
                    assert seen in {frame(n), frame(last)}
                    last = n if seen == frame(n) else last
                assert read(store) == frame(last)
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert store.stats().in_flight == 0
        assert hits
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    with FileBlobStore.open(store_path, **options) as store:
        assert read(store) == frame(last)


PRELUDE = """
import os, sys, warnings
from uringblob import FileBlobStore, StoreLocked
PAGE = 4096
GUID = bytes(range(16))
options = dict(engine=sys.argv[2], page_size=PAGE)
store = FileBlobStore.open(sys.argv[1], **options)
store.commit([(GUID, b"a" * PAGE)])
"""

FORK = """
def fork(child):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 3.12 warns of any fork beside threads
        pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        child()
        code = 0
    finally:
        os._exit(code)

def child():
    try:
        store.read_blob(GUID, bytearray(PAGE))
    except RuntimeError:
        pass
    else:
        raise AssertionError
    store.close()

for n in range(20):
    pid = fork(child)
    store.commit([(GUID, bytes([n]) * PAGE)])
    assert os.waitpid(pid, 0)[1] == 0
    frame = bytearray(PAGE)
    store.read_blob(GUID, frame)
    assert frame == bytes([n]) * PAGE
try:
    FileBlobStore.open(sys.argv[1], lock_timeout=0, **options)
except StoreLocked:
    pass
else:
    raise AssertionError("a child unlocked the parent's file")

# A child that lives on does not keep the parent's lock.
r, w = os.pipe()
pid = fork(lambda: (os.close(w), os.read(r, 1)))
store.close()
FileBlobStore.open(sys.argv[1], lock_timeout=0, **options).close()
os.close(w)
assert os.waitpid(pid, 0)[1] == 0
"""


def run_child(script, path, engine, *options):
    command = [sys.executable, *options, "-c", PRELUDE + script, path, engine]
    child = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert child.returncode == 0, child.stderr
    return child


def test_fork(store_path, engine):
    assert run_child(FORK, store_path, engine).stderr == ""


@pytest.mark.parametrize("flags", [(), ("-X", "dev")])
def test_open_at_exit(store_path, engine, flags):
    child = run_child("print('bye')", store_path, engine, *flags)
    assert child.stdout == "bye\n"
    assert "Traceback" not in child.stderr
    with FileBlobStore.open(store_path, engine=engine) as store:
        assert read(store) == b"a" * PAGE


def test_locked_while_open(store_path, options):
    with FileBlobStore.open(store_path, **options), pytest.raises(StoreLocked):
        FileBlobStore.open(store_path, lock_timeout=0, **options)
    before = set(os.listdir("/dev/fd"))
    for _ in range(20):
        FileBlobStore.open(store_path, lock_timeout=0, **options).close()
    assert len(os.listdir("/dev/fd")) == len(before)
