"""Every answer that a system may give, as a table: what comes of it and what was asked again."""

from __future__ import annotations

import asyncio
import errno

import pytest

from uringblob.buffers.iobuf import IoBuffer
from uringblob.completion import Completion
from uringblob.engines import transfers
from uringblob.engines.transfers import (
    RETRIES_MAX,
    SyncFailed,
    read_whole,
    sync,
    write_whole,
    write_whole_then_sync,
)
from uringblob.errors import BlobStoreIOError

BLOCK = 4096
BASE = 1 << 20
EINTR, EAGAIN, EIO, ENOSPC, ECANCELED = (
    -errno.EINTR,
    -errno.EAGAIN,
    -errno.EIO,
    -errno.ENOSPC,
    -errno.ECANCELED,
)


class ScriptedEngine:
    """Answers from a list, moves what it says it moved, and notes what it was asked."""

    def __init__(self, answers, *, content=b"", size=None, repeat_last=False):
        self.answers = list(answers)
        self.content = bytearray(content)
        self.size = BASE + len(content) if size is None else size
        self.asked = []
        self.repeat_last = repeat_last
        self.hold = False
        self.held = None

    def _answer(self):
        return self.answers[0] if self.repeat_last and len(self.answers) == 1 else self.answers.pop(0)

    def _resolve(self, result):
        loop = asyncio.get_running_loop()
        completion = Completion(loop=loop)
        if self.hold:
            self.held = completion, result
        else:
            loop.call_soon(completion.resolve, result)
        return completion

    def read(self, offset, frames):
        self.asked.append(("read", offset - BASE, sum(frame.size for frame in frames)))
        result = self._answer()
        at = offset - BASE
        left = result
        for frame in frames:
            part = self.content[at : at + max(0, min(left, frame.size))]
            frame.view[: len(part)] = part
            at, left = at + len(part), left - len(part)
        return self._resolve(result)

    def _store(self, offset, frames, put):
        data = b"".join(bytes(frame.view) for frame in frames)[: max(put, 0)]
        at = offset - BASE
        self.content[at : at + len(data)] = data

    def write(self, offset, frames):
        self.asked.append(("write", offset - BASE, sum(frame.size for frame in frames)))
        result = self._answer()
        self._store(offset, frames, result)
        return self._resolve(result)

    def write_then_sync(self, offset, frames):
        self.asked.append(("write+sync", offset - BASE, sum(frame.size for frame in frames)))
        result = self._answer()
        self._store(offset, frames, result[0])
        return self._resolve(result)

    def sync(self):
        self.asked.append(("sync",))
        return self._resolve(self._answer())

    def file_size(self):
        return self.size


def frames_of(data, piece=BLOCK):
    memory = memoryview(bytearray(data))
    return [IoBuffer(memory[at : at + piece], 1 << 30 | at, piece) for at in range(0, len(data), piece)]


def pattern(blocks):
    return b"".join(bytes([1 + number % 250]) * BLOCK for number in range(blocks))


def bytes_in(frames):
    return b"".join(bytes(frame.view) for frame in frames)


# ---- reads ------------------------------------------------------------------------------------

#: Answers; bytes read; where each further read began, in bytes.
READS = {
    "whole": ([4 * BLOCK], 4 * BLOCK, []),
    "short by a block": ([3 * BLOCK, BLOCK], 4 * BLOCK, [3 * BLOCK]),
    "short by 512": ([4 * BLOCK - 512, BLOCK], 4 * BLOCK, [3 * BLOCK]),
    "all but one": ([4 * BLOCK - 1, BLOCK], 4 * BLOCK, [3 * BLOCK]),
    "less than a block": ([100, 4 * BLOCK], 4 * BLOCK, [0]),
    "block by block": ([BLOCK] * 4, 4 * BLOCK, [BLOCK, 2 * BLOCK, 3 * BLOCK]),
    "interrupted": ([EINTR, EINTR, 4 * BLOCK], 4 * BLOCK, [0, 0]),
    "later": ([EAGAIN, EAGAIN, 4 * BLOCK], 4 * BLOCK, [0, 0]),
    "short, interrupted": ([BLOCK, EINTR, EAGAIN, 3 * BLOCK], 4 * BLOCK, [BLOCK, BLOCK, BLOCK]),
    "zero bytes amid the file": ([0, 4 * BLOCK], 4 * BLOCK, [0]),
    "slow but sure": ([EINTR, 2 * BLOCK] + [EINTR] * (RETRIES_MAX - 1) + [2 * BLOCK], 4 * BLOCK, None),
}


@pytest.mark.parametrize(("answers", "total", "again"), READS.values(), ids=READS)
async def test_reads_are_finished(answers, total, again):
    content = pattern(4)
    engine = ScriptedEngine(answers, content=content)
    frames = frames_of(bytes(4 * BLOCK), 4 * BLOCK)
    assert await read_whole(engine, BASE, frames[0], "reading") == total
    assert bytes_in(frames) == content
    assert not engine.answers
    if again is not None:
        assert [("read", at, 4 * BLOCK - at) for at in [0, *again]] == engine.asked


#: Answers; where the file ends; what is reported.
ENDS = {
    "nothing there": ([0], 0, 0),
    "ends at a block": ([2 * BLOCK, 0], 2 * BLOCK, 2 * BLOCK),
    "ends inside a block": ([2 * BLOCK + 100, 100], 2 * BLOCK + 100, 2 * BLOCK + 100),
    "ends at once": ([100, 100], 100, 100),
    "interrupted at the end": ([2 * BLOCK, EINTR, 0], 2 * BLOCK, 2 * BLOCK),
}


@pytest.mark.parametrize(("answers", "end", "total"), ENDS.values(), ids=ENDS)
async def test_a_read_ends_where_the_file_ends(answers, end, total):
    engine = ScriptedEngine(answers, content=pattern(4)[:end])
    frames = frames_of(bytes(4 * BLOCK), 4 * BLOCK)
    assert await read_whole(engine, BASE, frames[0], "reading") == total
    assert bytes_in(frames)[:total] == pattern(4)[:total]
    assert not engine.answers


READ_FAILURES = {
    "at once": ([EIO], errno.EIO),
    "after a part": ([BLOCK, EIO], errno.EIO),
    "not cancelled by us": ([ECANCELED], errno.ECANCELED),
    "after being interrupted": ([EINTR, EIO], errno.EIO),
    "interrupted for ever": ([EINTR], errno.EINTR),
    "later for ever": ([EAGAIN], errno.EAGAIN),
    "zero bytes for ever": ([0], errno.EIO),
    "short by 512 for ever": ([512], errno.EIO),
}


@pytest.mark.parametrize(("answers", "code"), READ_FAILURES.values(), ids=READ_FAILURES)
async def test_reads_that_fail(answers, code):
    engine = ScriptedEngine(answers, content=pattern(4), repeat_last=True)
    with pytest.raises(BlobStoreIOError, match="reading slot 7") as caught:
        await read_whole(engine, BASE, frames_of(bytes(4 * BLOCK), 4 * BLOCK)[0], "reading slot 7")
    assert caught.value.errno == code
    assert len(engine.asked) <= RETRIES_MAX + 1


async def test_a_length_that_cannot_be_asked_for_is_an_error_of_the_read():
    """A file system that has died."""
    engine = ScriptedEngine([0], content=pattern(4))
    engine.file_size = lambda: EIO
    with pytest.raises(BlobStoreIOError, match="reading slot 7: the file's length: EIO"):
        await read_whole(engine, BASE, frames_of(bytes(4 * BLOCK), 4 * BLOCK)[0], "reading slot 7")


# ---- writes -----------------------------------------------------------------------------------

WRITES = {
    "whole": ([4 * BLOCK], []),
    "short by a block": ([3 * BLOCK, BLOCK], [3 * BLOCK]),
    "short by 512": ([4 * BLOCK - 512, BLOCK], [3 * BLOCK]),
    "all but one": ([4 * BLOCK - 1, BLOCK], [3 * BLOCK]),
    "less than a block": ([512, 4 * BLOCK], [0]),
    "block by block": ([BLOCK] * 4, [BLOCK, 2 * BLOCK, 3 * BLOCK]),
    "interrupted": ([EINTR, 4 * BLOCK], [0]),
    "later": ([EAGAIN, EAGAIN, 4 * BLOCK], [0, 0]),
    "no thread for it, later": ([ECANCELED, ECANCELED, 4 * BLOCK], [0, 0]),
    "short, later": ([BLOCK, EAGAIN, 3 * BLOCK], [BLOCK, BLOCK]),
}


@pytest.mark.parametrize(("answers", "again"), WRITES.values(), ids=WRITES)
@pytest.mark.parametrize("piece", [BLOCK, 2 * BLOCK, 4 * BLOCK])
async def test_writes_are_finished(answers, again, piece):
    engine = ScriptedEngine(answers)
    await write_whole(engine, BASE, frames_of(pattern(4), piece), "writing")
    assert engine.content == pattern(4)
    assert [("write", at, 4 * BLOCK - at) for at in [0, *again]] == engine.asked


WRITE_FAILURES = {
    "full": ([ENOSPC], errno.ENOSPC),
    "full after a part": ([BLOCK, ENOSPC], errno.ENOSPC),
    "zero bytes": ([0], errno.EIO),
    "zero bytes after a part": ([BLOCK, 0], errno.EIO),
    "cancelled": ([ECANCELED], errno.ECANCELED),
    "interrupted for ever": ([EINTR], errno.EINTR),
    "later for ever": ([EAGAIN], errno.EAGAIN),
    "short by 512 for ever": ([512], errno.EIO),
}


@pytest.mark.parametrize(("answers", "code"), WRITE_FAILURES.values(), ids=WRITE_FAILURES)
async def test_writes_that_fail(answers, code):
    engine = ScriptedEngine(answers, repeat_last=True)
    with pytest.raises(BlobStoreIOError, match="writing slot 7") as caught:
        await write_whole(engine, BASE, frames_of(pattern(4)), "writing slot 7")
    assert caught.value.errno == code
    assert not isinstance(caught.value, SyncFailed)
    assert len(engine.asked) <= RETRIES_MAX + 1


async def test_where_there_is_never_a_thread_the_error_says_what_limits_them():
    engine = ScriptedEngine([ECANCELED], repeat_last=True)
    with pytest.raises(BlobStoreIOError, match="no thread for it, and RLIMIT_NPROC allows"):
        await write_whole(engine, BASE, frames_of(pattern(4)), "writing")
    assert len(engine.asked) == RETRIES_MAX


# ---- syncs ------------------------------------------------------------------------------------


async def test_sync():
    await sync(ScriptedEngine([0]), "syncing")


@pytest.mark.parametrize("code", [EIO, EINTR, EAGAIN, ENOSPC, ECANCELED])
async def test_a_failed_fsync_is_final(code):
    engine = ScriptedEngine([code, 0])
    with pytest.raises(SyncFailed, match="syncing x") as caught:
        await sync(engine, "syncing x")
    assert caught.value.errno == -code
    assert caught.value.applied is None
    assert engine.asked == [("sync",)]


#: Answers, the first of them to write+sync; whether one submission did it; what was asked further.
CHAINS = {
    "whole": ([(4 * BLOCK, 0)], True, []),
    "short": ([(3 * BLOCK, ECANCELED), BLOCK, 0], False, ["write", "sync"]),
    "short by 512": ([(4 * BLOCK - 512, ECANCELED), BLOCK, 0], False, ["write", "sync"]),
    "short, twice": ([(BLOCK, ECANCELED), BLOCK, 2 * BLOCK, 0], False, ["write", "write", "sync"]),
    "interrupted": ([(EINTR, ECANCELED), 4 * BLOCK, 0], False, ["write", "sync"]),
    "later": ([(EAGAIN, ECANCELED), 4 * BLOCK, 0], False, ["write", "sync"]),
    "synced too early": ([(3 * BLOCK, 0), BLOCK, 0], False, ["write", "sync"]),
}


@pytest.mark.parametrize(("answers", "linked", "then"), CHAINS.values(), ids=CHAINS)
async def test_chains_are_finished_and_synced_again(answers, linked, then):
    engine = ScriptedEngine(answers)
    assert await write_whole_then_sync(engine, BASE, frames_of(pattern(4)), "writing") is linked
    assert engine.content == pattern(4)
    assert [kind for kind, *_ in engine.asked] == ["write+sync", *then]
    assert not engine.answers


#: Answers; the errno raised; whether as a failed fsync; what was asked after the chain.
CHAIN_FAILURES = {
    "the write": ([(ENOSPC, ECANCELED)], ENOSPC, False, []),
    "zero bytes": ([(0, ECANCELED)], EIO, False, []),
    "the sync": ([(4 * BLOCK, EIO)], EIO, True, []),
    "the sync, interrupted": ([(4 * BLOCK, EINTR)], EINTR, True, []),
    "the sync, later": ([(4 * BLOCK, EAGAIN)], EAGAIN, True, []),
    "cancelled after a whole write": ([(4 * BLOCK, ECANCELED)], ECANCELED, True, []),
    "a sync that ran too early and failed": ([(BLOCK, EIO)], EIO, True, []),
    "both": ([(ENOSPC, EIO)], EIO, True, []),
    "the rest": ([(BLOCK, ECANCELED), ENOSPC], ENOSPC, False, ["write"]),
    "the second sync": ([(BLOCK, ECANCELED), 3 * BLOCK, EINTR], EINTR, True, ["write", "sync"]),
    "the second sync, cancelled": (
        [(BLOCK, ECANCELED), 3 * BLOCK, ECANCELED],
        ECANCELED,
        True,
        ["write", "sync"],
    ),
}


@pytest.mark.parametrize(("answers", "code", "by_sync", "then"), CHAIN_FAILURES.values(), ids=CHAIN_FAILURES)
async def test_chains_that_fail(answers, code, by_sync, then):
    engine = ScriptedEngine(answers)
    with pytest.raises(BlobStoreIOError) as caught:
        await write_whole_then_sync(engine, BASE, frames_of(pattern(4)), "writing")
    assert caught.value.errno == -code
    assert isinstance(caught.value, SyncFailed) is by_sync
    assert [kind for kind, *_ in engine.asked] == ["write+sync", *then]


# ---- more than one gather ---------------------------------------------------------------------


@pytest.fixture
def small_gathers(monkeypatch):
    """Three pieces and four blocks are one gather."""
    monkeypatch.setattr(transfers, "GATHER_PIECES_MAX", 3)
    monkeypatch.setattr(transfers, "GATHER_BYTES_MAX", 4 * BLOCK)


#: Size of a piece in blocks, of all in blocks; sizes of the gathers in blocks.
GATHERS = {
    "by pieces": (1, 8, [3, 3, 2]),
    "by bytes": (2, 8, [4, 4]),
    "just one": (1, 3, [3]),
}


@pytest.mark.parametrize(("piece", "blocks", "sizes"), GATHERS.values(), ids=GATHERS)
async def test_large_transfers_are_cut_into_gathers(small_gathers, piece, blocks, sizes):
    data = pattern(blocks)
    answers = [size * BLOCK for size in sizes]
    offsets = [sum(sizes[:number]) * BLOCK for number in range(len(sizes))]

    engine = ScriptedEngine(answers)
    await write_whole(engine, BASE, frames_of(data, piece * BLOCK), "writing")
    assert engine.content == data
    assert engine.asked == [("write", at, size) for at, size in zip(offsets, answers, strict=True)]


async def test_several_gathers_are_written_and_then_synced(small_gathers):
    engine = ScriptedEngine([3 * BLOCK, BLOCK, 2 * BLOCK, 2 * BLOCK, 0])
    assert await write_whole_then_sync(engine, BASE, frames_of(pattern(8)), "writing") is False
    assert [kind for kind, *_ in engine.asked] == ["write"] * 4 + ["sync"]
    assert engine.content == pattern(8)


async def test_the_kernels_limits_are_kept():
    assert transfers.GATHER_PIECES_MAX == 1024
    assert transfers.GATHER_BYTES_MAX < 2 * 1024**3
    assert transfers.GATHER_BYTES_MAX % BLOCK == 0
    engine = ScriptedEngine([1024 * BLOCK, BLOCK])
    await write_whole(engine, BASE, frames_of(pattern(1025)), "writing")


async def test_nothing_to_move_asks_for_nothing():
    engine = ScriptedEngine([0])
    await write_whole(engine, BASE, [], "writing")
    assert not engine.asked
    assert await write_whole_then_sync(engine, BASE, [], "writing") is False
    assert engine.asked == [("sync",)]


# ---- cancellation, and a driver that is no task -------------------------------------------------


async def test_a_cancelled_task_hears_of_it_when_the_operation_has_ended():
    engine = ScriptedEngine([BLOCK, 3 * BLOCK], content=pattern(4))
    engine.hold = True
    task = asyncio.ensure_future(
        read_whole(engine, BASE, frames_of(bytes(4 * BLOCK), 4 * BLOCK)[0], "reading")
    )
    await asyncio.sleep(0)
    task.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    completion, result = engine.held
    completion.resolve(result)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(engine.asked) == 1  # the rest is not begun


async def test_any_driver_that_resumes_on_done_callbacks_will_do():
    engine = ScriptedEngine([EAGAIN, BLOCK, EINTR, 3 * BLOCK])
    coroutine = write_whole(engine, BASE, frames_of(pattern(4)), "writing")
    finished = asyncio.get_running_loop().create_future()
    awaited = []

    def step(_done=None):
        try:
            future = coroutine.send(None)
        except StopIteration:
            finished.set_result(None)
        else:
            awaited.append(type(future))
            future._asyncio_future_blocking = False
            future.add_done_callback(step)

    step()
    await finished
    assert set(awaited) == {Completion}
    assert engine.content == pattern(4)
