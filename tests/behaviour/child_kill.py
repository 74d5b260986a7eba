"""Children that commit until they are killed, and the zygote that forks them.

The zygote imports once and forks; it has no thread and never opens a store.  For each line of
JSON it gets a descriptor, the writing end of a pipe, through which the child says what it begins
and what was acknowledged, in records that a pipe takes as a whole; what was said outlives the
child.  The children die by SIGKILL only.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import select
import signal
import socket
import struct
import sys
import threading
import time
import traceback

from behaviour.stamps import stamped
from uringblob import AsyncFileBlobStore, BlobGuid, FileBlobStore

#: What was said (see below), by which worker, about which of its batches.
RECORD = struct.Struct("<BBxxxxxxQ")
BEGUN, ACKNOWLEDGED, FAILED = range(3)
WORKERS = 3
GUIDS = 6
#: Log blocks after which the log is compacted.
COMPACTION_BLOCKS = 6
MESSAGE_BYTES = 4096


def guid(worker, number):
    """The ``number``-th guid of a worker."""
    return BlobGuid(bytes([worker, number]) * 8)


def batch(seed, worker, sequence):
    """Return what a worker's batch writes and what it deletes: all of it in two of three."""
    dice = random.Random(f"{seed}/{worker}/{sequence}")
    names = list(range(GUIDS))
    if dice.random() < 2 / 3:
        return names, []
    dice.shuffle(names)
    return names[2:], names[:1]


# ---- the child --------------------------------------------------------------------------------


def live(job, report):
    """Open the store and change it for ever."""
    try:
        if job["face"] == "sync":
            _live_sync(job, report)
        else:
            asyncio.run(_live_async(job, report))
    except BaseException:
        text = traceback.format_exc().encode()
        os.write(report, RECORD.pack(FAILED, 0, 0) + text[-MESSAGE_BYTES + RECORD.size :])
    finally:
        os._exit(1)


def _arguments(job, worker, sequence):
    writes, deletes = batch(job["seed"], worker, sequence)
    frames = [
        (guid(worker, number), stamped(guid(worker, number), sequence, job["page_size"])) for number in writes
    ]
    return frames, [guid(worker, number) for number in deletes]


def _live_sync(job, report):
    store = FileBlobStore.open(job["path"], **job["options"])
    store._core._core.maintenance.compaction_blocks_min = COMPACTION_BLOCKS
    if job["way"] == "idle":
        signal.pause()
    threads = [
        threading.Thread(target=_work_sync, args=(store, job, worker, report)) for worker in range(WORKERS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _work_sync(store, job, worker, report):
    try:
        sequence = job["first"]
        while True:
            frames, deletes = _arguments(job, worker, sequence)
            os.write(report, RECORD.pack(BEGUN, worker, sequence))
            if job["way"] == "commit":
                store.commit(frames, deletes)
            else:
                store.write_blobs(frames)
                for name in deletes:
                    store.delete_blob(name)
                store.flush()
            os.write(report, RECORD.pack(ACKNOWLEDGED, worker, sequence))
            sequence += 1
    except BaseException:
        text = traceback.format_exc().encode()
        os.write(report, RECORD.pack(FAILED, worker, 0) + text[-MESSAGE_BYTES + RECORD.size :])
        os._exit(1)


async def _live_async(job, report):
    store = await AsyncFileBlobStore.open(job["path"], **job["options"])
    store._core.maintenance.compaction_blocks_min = COMPACTION_BLOCKS
    if job["way"] == "idle":
        signal.pause()
    await asyncio.gather(*(_work_async(store, job, worker, report) for worker in range(WORKERS)))


async def _work_async(store, job, worker, report):
    sequence = job["first"]
    while True:
        frames, deletes = _arguments(job, worker, sequence)
        os.write(report, RECORD.pack(BEGUN, worker, sequence))
        if job["way"] == "commit":
            await store.commit(frames, deletes)
        else:
            await store.write_blobs(frames)
            for name in deletes:
                await store.delete_blob(name)
            await store.flush()
        os.write(report, RECORD.pack(ACKNOWLEDGED, worker, sequence))
        sequence += 1


# ---- the zygote -------------------------------------------------------------------------------


def main():
    """Fork a child for each job; end when the tests do."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children: no zombies
    gc.freeze()
    door = socket.socket(fileno=int(sys.argv[1]))
    while True:
        message, descriptors, _, _ = socket.recv_fds(door, MESSAGE_BYTES, 1)
        if not message:
            return
        pid = os.fork()
        if pid == 0:
            door.close()
            live(json.loads(message), descriptors[0])
        os.close(descriptors[0])
        door.send(str(pid).encode())


class Zygote:
    """The test's end: ``start`` a child, get its number and the pipe through which it reports."""

    def __init__(self, process, door):
        self.process = process
        self._door = door

    def start(self, job):
        reading, writing = os.pipe()
        try:
            socket.send_fds(self._door, [json.dumps(job).encode()], [writing])
        finally:
            os.close(writing)
        return int(self._door.recv(64)), Reports(reading)

    def close(self):
        self._door.close()
        self.process.wait()


class Reports:
    """What a child has said so far: per worker the last batch begun and the last acknowledged."""

    def __init__(self, reading):
        self._reading = reading
        self._rest = b""
        self.records = 0
        self.begun = {}
        self.acknowledged = {}

    def close(self):
        os.close(self._reading)

    def wait(self, records, seconds):
        """Wait until there are so many records, and no longer than so many seconds."""
        end = time.monotonic() + seconds
        while self.records < records and (left := end - time.monotonic()) > 0:
            if select.select([self._reading], [], [], left)[0] and not self._take():
                return

    def drain(self):
        """Take all that was said before the child died."""
        for _ in iter(self._take, False):
            pass

    def _take(self):
        data = os.read(self._reading, 1 << 16)
        self._rest += data
        while len(self._rest) >= RECORD.size:
            kind, worker, sequence = RECORD.unpack_from(self._rest)
            if kind == FAILED:
                raise AssertionError(
                    f"the child failed: {self._rest[RECORD.size :].decode(errors='replace')}"
                )
            self._rest = self._rest[RECORD.size :]
            self.records += 1
            (self.begun if kind == BEGUN else self.acknowledged)[worker] = sequence
        return bool(data)


if __name__ == "__main__":
    main()
