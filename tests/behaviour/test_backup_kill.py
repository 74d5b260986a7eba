"""Row 22, kills: a backup that dies by SIGKILL after each of its steps is resumed; a complete one stays until the next."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from uringblob import INCOMPLETE, BlobGuid, FileBlobStore
from uringblob.api import backup

PAGE = 4096
BLOBS = 10
STEPS = BLOBS // 2

CHILD = f"""
import os, signal, sys
from uringblob import FileBlobStore
from uringblob.api import backup
backup._STEP_BYTES = 2 * {PAGE}
path, engine, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])

def die(done, total):
    if done == 2 * steps:
        os.kill(os.getpid(), signal.SIGKILL)

with FileBlobStore.open(path, read_only=True, engine=engine) as store:
    store.backup(path + ".copy", die)
"""


def fill(path, stamp, engine):
    with FileBlobStore.open(path, page_size=PAGE, engine=engine) as store:
        frames = {BlobGuid.of(str(n)): bytes([n + stamp]) * PAGE for n in range(BLOBS)}
        store.commit(list(frames.items()))
    return frames


def frames_of(path):
    room, found = bytearray(PAGE), {}
    with FileBlobStore.open(path, lock_timeout=60) as store:
        for guid in store.list_blobs():
            store.read_blob(guid, room)
            found[guid] = bytes(room)
    return found


@pytest.mark.parametrize("earlier", [False, True], ids=["new", "earlier backup"])
def test_killed_after_each_step(store_path, engine, earlier, monkeypatch, count_row):
    monkeypatch.setattr(backup, "_STEP_BYTES", 2 * PAGE)
    copy = store_path + ".copy"
    for steps in range(1, STEPS + 1):
        before = fill(store_path, 0, engine)
        if os.path.exists(copy):
            os.unlink(copy)
        if earlier:
            with FileBlobStore.open(store_path) as store:
                store.backup(copy)
        frames = fill(store_path, 100, engine)
        command = [sys.executable, "-c", CHILD, store_path, engine, str(steps)]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
        found = frames_of(copy)
        if earlier:
            assert found == before, "the earlier backup is gone"
        else:
            assert found.pop(INCOMPLETE)
            assert found.items() <= frames.items()
            assert len(found) == 2 * steps
        with FileBlobStore.open(store_path, engine=engine) as store:
            report = store.backup(copy)
        assert report.copied == (BLOBS if earlier else BLOBS - 2 * steps)
        assert frames_of(copy) == frames
    count_row(22, kills=STEPS)
