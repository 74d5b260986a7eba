"""The order monitor can fail: each wrong order is played to it by hand, and it names the rule."""

from __future__ import annotations

import dataclasses

import pytest

from monitor.acks import Promises
from monitor.blocks import BLOCK, parse_block, parse_superblock
from monitor.order import OrderMonitor
from uringblob.buffers.checksum import frame_checksum
from uringblob.buffers.iobuf import IoBuffer
from uringblob.store.format import (
    BlockType,
    SlotRun,
    decode_block,
    decode_superblock,
    delete_record,
    encode_block,
    entry_meta,
    link_record,
    pack_entry,
    set_record,
)
from uringblob.store.index.log_space import granule_slots
from uringblob.testing import new_image

pytestmark = pytest.mark.one_interpreter

A, B = b"a" * 16, b"b" * 16
FREE = 1000
FRAME = b"\x01" * BLOCK


class Play:
    """A store that does what the test says, on an empty store's file, and its monitor."""

    def __init__(self, image=None, *, read_only: bool = False, verified: bool = False) -> None:
        self.image = new_image() if image is None else image
        self.lines: list[str] = []
        self.monitor = OrderMonitor(self.image.read, self.lines.append)
        self.promises = Promises(self.monitor)
        self.super = decode_superblock(self.image.read(0, BLOCK), 0)
        self.slots = granule_slots(BLOCK)
        self.place = self.super.head.slot * BLOCK
        self.tail = self.super.head.slot + self.slots
        self.read(self.place, self.slots * BLOCK)
        self.read(self.tail * BLOCK, self.slots * BLOCK)
        if verified:
            self.read(FREE * BLOCK, BLOCK)
        self.monitor.opened(read_only=read_only)
        self.seq, self.block = 1, 3

    @property
    def rules(self) -> set[int]:
        return {int(line.split("rule ")[1].split(":")[0]) for line in self.lines if "rule " in line}

    def _frames(self, data: bytes):
        return [IoBuffer(memoryview(data), 0, len(data))]

    def read(self, offset: int, size: int) -> None:
        frames = self._frames(self.image.read(offset, size))
        self.monitor.read_ends(self.monitor.read_begins(offset, frames), size)

    def begin(self, offset: int, data: bytes):
        return self.monitor.write_begins(offset, self._frames(data)), len(data)

    def end(self, begun, rc: int | None = None) -> None:
        token, size = begun
        self.monitor.write_ends(token, size if rc is None else rc)

    def write(self, offset: int, data: bytes) -> None:
        self.end(self.begin(offset, data))

    def slot(self, number: int, data: bytes = FRAME) -> None:
        self.write(number * BLOCK, data)

    def sync(self, rc: int = 0) -> None:
        self.monitor.sync_ends(self.monitor.sync_begins(), rc)

    def encode(self, offset: int, kind: BlockType, seq: int, records, **more) -> bytes:
        fields = {"log_id": self.super.log_id, "page_size": self.super.page_size, **more}
        return encode_block(self.super.store_id, offset, block_type=kind, seq=seq, records=records, **fields)

    def group(self, *records: bytes, **more):
        """Begin to write the next group."""
        self.seq += 1
        offset = self.place + self.block * BLOCK
        self.block += 1
        return self.begin(offset, self.encode(offset, BlockType.GROUP, self.seq, records, **more))

    def commit(self, guid: bytes, slot: int) -> None:
        self.slot(slot)
        self.end(self.group(put(guid, slot)))
        self.sync()

    def superblock(self, offset: int, revision: int, floor: int) -> bytes:
        return dataclasses.replace(self.super, revision=revision, floor=floor).encode(offset)


def put(guid: bytes, slot: int) -> bytes:
    return set_record(guid, pack_entry(slot, frame_checksum(FRAME)))


@pytest.fixture
def play():
    return Play()


def test_a_good_life_has_no_remark(play):
    play.commit(A, FREE)
    play.promises.committed([A], [], 1)
    play.commit(A, FREE + 1)
    play.commit(B, FREE + 2)
    play.slot(FREE)  # group 3 freed it, and group 4 is durable
    play.end(play.group(delete_record(B)))
    play.sync()
    play.promises.committed([], [B], 4)
    play.write(0, play.superblock(0, 10, 5))
    play.sync()
    play.write(BLOCK, play.superblock(BLOCK, 11, 5))
    play.sync()
    assert not play.lines
    assert play.monitor.seq == 5
    assert play.monitor.entries == {A: FREE + 1}


def test_a_snapshot_is_believed_to_show_what_it_must_show_only(play):
    """Not what a call may have replaced by then, nor what a later group than its own names."""
    play.commit(A, FREE)
    play.commit(B, FREE + 1)
    play.promises.begins().append(A)
    taken, closed = Snapshot(2), Snapshot(3)
    play.promises.snapshot_taken(taken)
    play.promises.snapshot_taken(closed)
    assert list(map(play.monitor.shown.get, (taken, closed))) == [set(), {FREE + 1}]
    del closed
    play.commit(A, FREE + 2)
    play.commit(B, FREE + 3)
    play.commit(A, FREE + 4)
    play.slot(FREE)
    play.slot(FREE + 1)
    assert play.lines == []


@pytest.mark.parametrize("verified", [True, False])
def test_what_a_read_only_opener_shows_and_has_not_verified_is_named(verified):
    """Rule 14: nothing proves the last group, so its frames are read before they are shown."""
    writer = Play()
    offset = writer.place + writer.block * BLOCK
    record = set_record(A, pack_entry(FREE, frame_checksum(FRAME)))
    writer.image.write(offset, writer.encode(offset, BlockType.GROUP, 2, [record]))
    writer.image.size = (FREE + 1) * BLOCK
    writer.image.write(FREE * BLOCK, FRAME)
    reader = Play(writer.image, read_only=True, verified=verified)
    reader.read(FREE * BLOCK, BLOCK)
    assert reader.rules == (set() if verified else {14})


def test_a_groups_frame_may_come_after_its_blocks(play):
    """Once an alarm, on a file system that filled up: a batch copied through bounce frames was in two parts.

    The second part went into a slot that had been used before, when the group's block was on its
    way already.  Only the flush waits for both, so nothing was wrong.
    """
    play.commit(A, FREE)
    play.end(play.group(delete_record(A)))
    play.sync()
    play.commit(B, FREE + 1)
    late = b"\x02" * BLOCK
    block = play.group(set_record(A, pack_entry(FREE, frame_checksum(late))))
    play.slot(FREE, late)
    play.end(block)
    play.sync()
    play.promises.committed([A], [], 4)
    assert play.lines == []
    assert play.monitor.seq == 5


def test_a_flush_between_does_not_make_a_group_durable_whose_slot_holds_an_older_frame(play):
    """Once an alarm: the flush was another batch's, and both block and older frame were written before it."""
    play.commit(A, FREE)
    play.end(play.group(delete_record(A)))
    play.sync()
    play.commit(B, FREE + 1)
    late = b"\x02" * BLOCK
    play.end(play.group(set_record(A, pack_entry(FREE, frame_checksum(late)))))
    play.sync()
    assert play.monitor.seq == 4
    play.slot(FREE, late)
    play.sync()
    play.promises.committed([A], [], 4)
    assert play.lines == []
    assert play.monitor.seq == 5


def another_frame_in_a_slot_of_the_group(play):
    """The same, and what comes is not the frame that the group names."""
    play.commit(A, FREE)
    play.end(play.group(delete_record(A)))
    play.sync()
    play.commit(B, FREE + 1)
    play.group(set_record(A, pack_entry(FREE, frame_checksum(b"\x02" * BLOCK))))
    play.slot(FREE)


def live_slot(play):
    play.commit(A, FREE)
    play.slot(FREE)


class Snapshot:
    def __init__(self, seq):
        self.seq = seq


def slot_that_a_snapshot_shows(play):
    play.commit(A, FREE)
    taken = Snapshot(play.monitor.seq)
    play.promises.snapshot_taken(taken)
    play.commit(A, FREE + 1)
    play.commit(B, FREE + 2)
    play.slot(FREE)  # group 3 freed it, and group 4 is durable
    assert taken


def slot_of_the_last_group(play):
    play.commit(A, FREE)
    play.commit(A, FREE + 1)
    play.slot(FREE)


def slot_of_a_group_that_is_not_durable(play):
    play.commit(A, FREE)
    play.slot(FREE + 1)
    play.end(play.group(put(A, FREE + 1)))
    play.slot(FREE)


def slot_under_a_reader(play):
    play.slot(FREE)
    frames = play._frames(FRAME)
    play.monitor.read_begins(FREE * BLOCK, frames)
    play.slot(FREE)


def slot_whose_write_is_in_flight(play):
    play.begin(FREE * BLOCK, FRAME)
    play.slot(FREE)


def slot_whose_write_failed(play):
    play.end(play.begin(FREE * BLOCK, FRAME), -5)
    play.slot(FREE)


def log_block(play):
    play.write(play.place + play.block * BLOCK, FRAME)


def acknowledged_block(play):
    play.commit(A, FREE)
    play.write(play.place + (play.block - 1) * BLOCK, bytes(BLOCK))


def acknowledged_block_again(play):
    play.commit(A, FREE)
    play.seq, play.block = play.seq - 1, play.block - 1
    play.group(delete_record(A))


def next_group_too_early(play):
    play.slot(FREE)
    play.end(play.group(put(A, FREE)))
    play.group(put(B, FREE + 1))


def frame_after_the_flush_began(play):
    """The log and the flush are right; the frame was complete only after the flush had begun."""
    frame = play.begin(FREE * BLOCK, FRAME)
    play.end(play.group(put(A, FREE)))
    began = play.monitor.sync_begins()
    play.end(frame)
    play.monitor.sync_ends(began, 0)
    play.promises.committed([A], [], 1)


def short_frame(play):
    play.end(play.begin(FREE * BLOCK, FRAME), 512)
    play.end(play.group(put(A, FREE)))
    play.sync()
    play.promises.committed([A], [], 1)


def flush_that_failed(play):
    play.slot(FREE)
    play.end(play.group(put(A, FREE)))
    play.sync(-5)
    play.promises.committed([A], [], 1)


def flush_beside_one_that_failed(play):
    play.slot(FREE)
    play.end(play.group(put(A, FREE)))
    first, second = play.monitor.sync_begins(), play.monitor.sync_begins()
    play.monitor.sync_ends(second, 0)
    play.monitor.sync_ends(first, -5)
    play.promises.committed([A], [], 1)


def flush_tried_again(play):
    play.sync(-5)
    play.sync()


def failed_group_not_wiped(play):
    play.end(play.begin(FREE * BLOCK, FRAME), -28)
    play.end(play.group(put(A, FREE)))
    play.seq, play.block = play.seq - 1, play.block - 1
    play.slot(FREE + 1)
    play.group(put(B, FREE + 1))


def wipe_not_flushed(play):
    play.end(play.begin(FREE * BLOCK, FRAME), -28)
    play.end(play.group(put(A, FREE)))
    play.seq, play.block = play.seq - 1, play.block - 1
    play.write(play.place + play.block * BLOCK, bytes(BLOCK))
    play.group(put(B, FREE + 1))


def hole_in_the_log(play):
    play.block += 1
    play.group(put(A, FREE))


def sequence_number_left_out(play):
    play.seq += 1
    play.group(put(A, FREE))


def one_slot_for_two(play):
    play.commit(A, FREE)
    play.group(put(B, FREE))


def frames_said_to_be_flushed(play):
    play.slot(FREE)
    play.group(put(A, FREE), flags=1)


def segment_linked_before_it_is_zeroed(play):
    offset = play.tail * BLOCK
    play.slot(FREE, bytes(BLOCK))
    link = link_record(1, play.slots, FREE, 1)
    play.write(offset, play.encode(offset, BlockType.SEGMENT, 0, [link]))


def superblocks_together(play):
    play.commit(A, FREE)
    play.write(0, play.superblock(0, 10, 2))
    play.write(BLOCK, play.superblock(BLOCK, 11, 2))


def seal_before_the_flush(play):
    play.slot(FREE)
    play.end(play.group(put(A, FREE)))
    play.write(0, play.superblock(0, 10, 2))


def newer_superblock_first(play):
    play.commit(A, FREE)
    play.write(0, play.superblock(0, 10, 2))
    play.sync()
    play.write(0, play.superblock(0, 11, 2))


def switch_to_nowhere(play):
    play.seq += 1
    offset = play.place + play.block * BLOCK
    play.write(offset, play.encode(offset, BlockType.SWITCH, play.seq, [link_record(7, FREE, 1, 0)]))


def frame_in_log_space(play):
    extent = play.super.log_space[0]
    play.group(put(A, extent.end - 1))


def segment_linked_outside_log_space(play):
    offset = play.tail * BLOCK
    for slot in range(FREE, FREE + play.slots):
        play.slot(slot, bytes(BLOCK))
    play.sync()
    link = link_record(1, play.slots, FREE, play.slots)
    play.write(offset, play.encode(offset, BlockType.SEGMENT, 0, [link]))


def log_space_over_a_blob(play):
    play.commit(A, FREE)
    grown = dataclasses.replace(
        play.super, revision=10, log_space=(*play.super.log_space, SlotRun(FREE, play.slots))
    )
    play.write(0, grown.encode(0))


def flush_that_forgot(play):
    play.promises.changed([A], 1)
    play.promises.flushed(play.promises.before_flush())


WRONG = {
    live_slot: 8,
    slot_that_a_snapshot_shows: 8,
    slot_of_the_last_group: 8,
    slot_of_a_group_that_is_not_durable: 8,
    slot_under_a_reader: 8,
    slot_whose_write_is_in_flight: 8,
    slot_whose_write_failed: 8,
    log_block: 8,
    acknowledged_block: 4,
    acknowledged_block_again: 4,
    next_group_too_early: 2,
    frame_after_the_flush_began: 1,
    short_frame: 1,
    flush_that_failed: 1,
    flush_beside_one_that_failed: 1,
    flush_tried_again: 12,
    failed_group_not_wiped: 5,
    another_frame_in_a_slot_of_the_group: 5,
    wipe_not_flushed: 2,
    hole_in_the_log: 4,
    sequence_number_left_out: 2,
    one_slot_for_two: 8,
    frames_said_to_be_flushed: 15,
    segment_linked_before_it_is_zeroed: 6,
    superblocks_together: 9,
    seal_before_the_flush: 10,
    newer_superblock_first: 9,
    switch_to_nowhere: 9,
    frame_in_log_space: 8,
    segment_linked_outside_log_space: 13,
    log_space_over_a_blob: 13,
    flush_that_forgot: 16,
}


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
def test_a_wrong_order_is_named(play, wrong):
    wrong(play)
    assert WRONG[wrong] in play.rules, play.lines


def test_two_parsers_one_format():
    """The monitor's parser was written from the page alone; it reads what the store's own reads."""
    image = new_image()
    for offset in (0, BLOCK):
        raw = image.read(offset, BLOCK)
        ours, theirs = parse_superblock(raw, offset), decode_superblock(raw, offset)
        assert (ours.page_size, ours.store_id, ours.revision) == (4096, theirs.store_id, theirs.revision)
        assert (ours.log_id, ours.head, ours.floor) == (
            theirs.log_id,
            (theirs.head.slot, theirs.head.slots),
            theirs.floor,
        )
        assert ours.version == theirs.version == 2
        assert ours.log_space == tuple((extent.slot, extent.slots) for extent in theirs.log_space)
    for count, meta in [*((n, False) for n in (0, 1, 14, 15, 100, 119)), *((n, True) for n in (2, 3, 4, 20))]:
        metas = [b"m" * (n * 37 % 256) if meta and n % 3 else b"" for n in range(count)]
        records = [set_record(bytes([n]) * 16, pack_entry(n + 1, n, metas[n])) for n in range(count)]
        raw = encode_block(b"s" * 16, 8192, log_id=5, block_type=BlockType.GROUP, seq=9, records=records)
        ours, theirs = parse_block(b"s" * 16, 8192, raw), decode_block(b"s" * 16, 8192, raw)
        assert ours.records == [(g, e >> 64, e & (1 << 64) - 1) for g, e in theirs.entries()]
        assert ours.metas == {e >> 64: entry_meta(e) for _, e in theirs.entries() if entry_meta(e)}
        assert (ours.seq, ours.log_id, ours.index, ours.count) == (9, 5, 0, 1)
        for bit in range(0, BLOCK * 8, 997):
            rotten = bytearray(raw)
            rotten[bit // 8] ^= 1 << bit % 8
            assert parse_block(b"s" * 16, 8192, bytes(rotten)) is None


async def test_every_store_is_watched(store_path, engine):
    """The whole suite runs with the monitor between store and engine, and it is not blind."""
    from uringblob import AsyncFileBlobStore

    async with AsyncFileBlobStore.open(store_path, page_size=4096, engine=engine) as store:
        await store.commit([(A, FRAME)])
        monitor = store._core.file_io.engine.observer
        assert not monitor.blind
        assert A in monitor.entries
        assert monitor.last_record[A] == monitor.seq
