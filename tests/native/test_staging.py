"""Staging against a model: any sequence of calls gives each operation one completion, its own, in order.

The ring is wide open here (Python's half is not there): what is staged, pushed, submitted, withdrawn and
reaped is compared with a model after every step.
"""

from __future__ import annotations

import collections
import errno
import os
import random
from typing import NamedTuple

import pytest

from uringblob import _native
from uringblob.buffers.checksum import frame_checksum

BLOCK = 4096
BLOCKS = 8
ENTRIES = 8
NOP, FSYNC, READ = 0, 3, 22
#: user_data of staged operations is below; C keeps the check's number above.
TOP = 1 << 46
SEEDS = 40
STEPS = 400

pytestmark = pytest.mark.usefixtures("needs_uring")


class Rig:
    """A ring on a file whose last block is half there, and one block of memory for each operation."""

    def __init__(self, path):
        self.lib, self.ffi = _native.lib, _native.ffi
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self.contents = [bytes([65 + number]) * BLOCK for number in range(BLOCKS)]
        self.contents[-1] = self.contents[-1][: BLOCK // 2]
        os.pwrite(self.fd, b"".join(self.contents), 0)
        self.ring = self.ffi.new("struct ub_ring *")
        assert self.lib.ub_open(self.ring, ENTRIES, 0) == 0
        self.cqes = self.ring.cqe_buffer = self.ffi.new("struct ub_completion[]", self.ring.cq_entries)
        assert self.lib.ub_register_files(self.ring, [self.fd], 1) >= 0
        self.memory = [self.ffi.new("char[]", BLOCK) for _ in range(self.ring.cq_entries)]
        self.free = list(range(len(self.memory)))

    def close(self):
        self.lib.ub_close(self.ring)
        os.close(self.fd)

    def stage(self, user_data, opcode, *, at=0, block=0, want=None):
        place = 0, 0, 0
        if opcode == READ:
            place = int(self.ffi.cast("uintptr_t", self.memory[at])), block * BLOCK, BLOCK
        return self.lib.ub_stage(self.ring, user_data, opcode, 0, 0, *place, want is not None, want or 0)

    def submit(self, user_data):
        """Submit operations on a bare descriptor at once, with what is staged."""
        ops = self.ffi.new("struct ub_op[]", len(user_data))
        for op, number in zip(ops, user_data, strict=True):
            op.user_data, op.opcode = number, NOP
        return self.lib.ub_submit(self.ring, ops, len(user_data))

    def staged(self):
        numbers = [self.lib.ub_staged(self.ring, index) for index in range(self.ring.staged)]
        assert self.lib.ub_staged(self.ring, self.ring.staged) == 0
        return numbers

    def reap(self, bytes_max=1 << 40):
        count = self.lib.ub_reap(self.ring, bytes_max)
        assert count >= 0
        return [(c.user_data, c.result, bool(c.flags & self.lib.UB_MISMATCH)) for c in self.cqes[0:count]]

    def has_every_check(self):
        """Whether as many operations can be checked as may be in flight; nothing may be in flight now."""
        for number in range(self.ring.cq_entries):
            if self.stage(number + 1, NOP, want=1) < 0:
                return False
            if self.ring.staged == ENTRIES:
                assert self.lib.ub_push(self.ring) == ENTRIES
        while self.reap():
            self.ring.consumed = 1
        return True


@pytest.fixture
def rig(disk_dir):
    rig = Rig(disk_dir / "file")
    yield rig
    rig.close()


class Expected(NamedTuple):
    """What an operation shall end with, and its memory."""

    result: int
    mismatch: bool
    at: int | None


class Model:
    """What is staged, and what is in the kernel; ``wide`` operations at most in both."""

    def __init__(self, rig, rng, wide):
        self.rig, self.rng, self.wide = rig, rng, wide
        rig.ring.in_flight_max = wide
        self.numbers = iter(range(1, TOP))
        self.staged = collections.OrderedDict()
        self.in_kernel = {}
        self.accepted = self.reaped = self.moved = 0
        self.refused = self.withdrawn = self.mismatches = self.short = 0

    def stage(self):
        rig, rng, number = self.rig, self.rng, next(self.numbers)
        at = rig.free[-1] if rig.free else 0
        opcode = rng.choice((NOP, FSYNC, READ, READ, READ))
        block, want, mismatch, result = rng.randrange(BLOCKS), None, False, 0
        if opcode == READ:
            result = len(rig.contents[block])
            if rng.random() < 0.7:
                wrong = rng.random() < 0.4
                want = frame_checksum(memoryview(rig.contents[block])) ^ wrong
                mismatch = wrong and result == BLOCK
        staged = rig.stage(number, opcode, at=at, block=block, want=want)
        if len(self.staged) >= ENTRIES or len(self.staged) + self.accepted - self.reaped >= self.wide:
            assert staged == -errno.EAGAIN
            self.refused += 1
            return
        assert staged == len(self.staged) + 1
        if result:
            rig.free.pop()
            rig.ffi.memmove(rig.memory[at], bytes(BLOCK), BLOCK)
        self.staged[number] = Expected(result, mismatch, at if result else None)

    def push(self):
        taken = self.rig.lib.ub_push(self.rig.ring)
        assert taken == len(self.staged)
        self._taken()

    def _taken(self):
        self.accepted += len(self.staged)
        self.in_kernel.update(self.staged)
        self.staged.clear()

    def submit(self):
        """As Python does: so many as fit beside what is staged."""
        room = min(ENTRIES, self.wide - (self.accepted - self.reaped) - len(self.staged))
        numbers = [next(self.numbers) for _ in range(self.rng.randint(0, max(room, 0)))]
        before = self.rig.ring.passed
        assert self.rig.submit(numbers) == len(numbers)
        assert self.rig.ring.passed == before + len(numbers), "what was staged is not counted there"
        self._taken()
        self.accepted += len(numbers)
        self.in_kernel.update((number, Expected(0, False, None)) for number in numbers)

    def unstage(self):
        self.rig.lib.ub_unstage(self.rig.ring)
        self.withdrawn += len(self.staged)
        self.rig.free += [expected.at for expected in self.staged.values() if expected.at is not None]
        self.staged.clear()

    def reap(self):
        rig, rng = self.rig, self.rng
        found = rig.reap(rng.choice((1, BLOCK, 3 * BLOCK, 1 << 40)))
        self.reaped = rig.ring.reaped
        if found and rng.random() < 0.2:
            assert rig.reap() == found, "not consumed: the same again, checked once"
        for number, result, mismatch in found:
            expected = self.in_kernel.pop(number)
            assert (result, mismatch) == (expected.result, expected.mismatch)
            self.mismatches += mismatch
            if expected.at is not None:
                self._examine(expected)
        rig.ring.consumed = 1

    def _examine(self, expected):
        got = bytes(self.rig.ffi.buffer(self.rig.memory[expected.at], BLOCK))[: expected.result]
        assert got in self.rig.contents
        self.short += len(got) < BLOCK
        self.moved += len(got)
        self.rig.free.append(expected.at)

    def check(self):
        ring = self.rig.ring
        assert self.rig.staged() == list(self.staged), "in the order in which they were staged"
        assert (ring.accepted, ring.reaped) == (self.accepted, self.reaped)
        assert ring.accepted - ring.reaped + ring.staged <= max(self.wide, ring.staged)

    def end(self):
        """Drain, and find everything given back."""
        self.push()
        while self.in_kernel:
            self.rig.lib.ub_wait(self.rig.ring)
            self.reap()
        assert self.rig.reap() == []
        ring = self.rig.ring
        assert (ring.accepted, ring.reaped) == (self.accepted, self.accepted)
        ring.in_flight_max = ring.cq_entries
        assert self.rig.has_every_check()
        assert sorted(self.rig.free) == list(range(ring.cq_entries))
        assert ring.moved[0] == self.moved


def test_any_sequence_gives_each_operation_one_completion_and_its_own(disk_dir):
    total = collections.Counter()
    for seed in range(SEEDS):
        rng, rig = random.Random(seed), Rig(disk_dir / "file")
        model = Model(rig, rng, rng.choice((1, 3, ENTRIES, rig.ring.cq_entries)))
        steps = [model.stage] * 12 + [model.push] * 2 + [model.reap] * 3 + [model.submit, model.unstage]
        for _ in range(STEPS):
            rng.choice(steps)()
            model.check()
        model.end()
        for name in ("refused", "withdrawn", "mismatches", "short"):
            total[name] += getattr(model, name)
        rig.close()
    assert min(total.values()) > SEEDS, total


def test_the_kernel_takes_what_is_staged_before_what_is_submitted(rig):
    """One thread's no-operations complete in the order in which the kernel took them."""
    assert [rig.stage(number, NOP) for number in (1, 2, 3)] == [1, 2, 3]
    assert rig.submit([4, 5]) == 2
    assert rig.ring.enters == 1
    assert [number for number, _, _ in rig.reap()] == [1, 2, 3, 4, 5]


def test_what_is_staged_makes_room_for_a_submission_that_else_would_not_fit(rig):
    assert [rig.stage(number, NOP) for number in range(1, 6)] == [1, 2, 3, 4, 5]
    assert rig.submit(list(range(6, 14))) == 8
    assert [number for number, _, _ in rig.reap()] == list(range(1, 14))


def test_no_more_is_staged_than_the_queue_holds_and_the_refused_one_leaves_nothing(rig):
    want = frame_checksum(memoryview(rig.contents[0]))
    for number in range(1, ENTRIES + 1):
        assert rig.stage(number, READ, at=number, want=want) == number
    assert rig.stage(99, READ, want=want) == -errno.EAGAIN
    assert rig.staged() == list(range(1, ENTRIES + 1))
    rig.lib.ub_unstage(rig.ring)
    assert rig.lib.ub_push(rig.ring) == 0
    assert rig.reap() == []
    assert rig.has_every_check()


def test_a_number_that_would_reach_into_the_checks_is_refused(rig):
    assert rig.stage(TOP, NOP) == -errno.EINVAL
    assert rig.stage(TOP - 1, NOP) == 1
    assert rig.lib.ub_push(rig.ring) == 1
    assert rig.reap() == [(TOP - 1, 0, False)]


@pytest.mark.parametrize("right", [False, True])
def test_a_frame_that_is_not_whole_is_no_mismatch(rig, right):
    """Its rest is read by another request; the checksum is made then."""
    want = frame_checksum(memoryview(rig.contents[-1])) ^ (not right)
    rig.stage(1, READ, block=BLOCKS - 1, want=want)
    rig.stage(2, READ, block=BLOCKS, want=want)  # behind the end
    rig.lib.ub_push(rig.ring)
    assert rig.reap() == [(1, BLOCK // 2, False), (2, 0, False)]
    rig.ring.consumed = 1
    assert rig.reap() == []
    assert rig.has_every_check()


def test_a_reaping_stops_behind_the_frame_that_reaches_the_limit(rig):
    """Unchecked ones do not count."""
    want = frame_checksum(memoryview(rig.contents[0]))
    for number in range(1, 7):
        rig.stage(number, READ, at=number, want=None if number == 2 else want)
    rig.lib.ub_push(rig.ring)
    reaped = []
    while found := rig.reap(2 * BLOCK):
        reaped.append([number for number, _, _ in found])
        rig.ring.consumed = 1
    assert reaped == [[1, 2, 3], [4, 5], [6]]


def test_an_error_is_no_mismatch(rig):
    want = frame_checksum(memoryview(rig.contents[0]))
    assert rig.lib.ub_stage(rig.ring, 1, READ, 0, 0, 8, 0, BLOCK, 1, want) == 1  # no memory lies there
    rig.lib.ub_push(rig.ring)
    assert rig.reap() == [(1, -errno.EFAULT, False)]


def test_what_the_kernel_refuses_ends_and_what_is_behind_it_stays_staged(rig):
    """Without IORING_SETUP_SUBMIT_ALL a submission ends at an operation that the kernel refuses."""
    rig.stage(1, NOP)
    assert rig.lib.ub_stage(rig.ring, 2, FSYNC, 0, 0, 8, 0, 0, 0, 0) == 2  # no fsync has an address
    rig.stage(3, NOP)
    assert rig.lib.ub_push(rig.ring) == 2
    assert rig.staged() == [3]
    assert rig.lib.ub_push(rig.ring) == 1
    assert rig.reap() == [(1, 0, False), (2, -errno.EINVAL, False), (3, 0, False)]


def test_a_closed_ring_stages_nothing(rig):
    rig.stage(1, NOP)
    rig.lib.ub_close(rig.ring)
    assert rig.stage(2, NOP) == rig.lib.ub_push(rig.ring) == -errno.EBADF
    assert rig.lib.ub_staged(rig.ring, 0) == 0
    rig.lib.ub_unstage(rig.ring)
