"""The bare system calls: on a real ring, and not at all on other systems than Linux."""

from __future__ import annotations

import ctypes
import errno
import os
import sys

from uringblob.cli.doctor import uring
from uringblob.ring import Opcode, Ring


def test_a_ring_is_made_probed_and_closed(needs_uring):
    with uring.raw_ring(4) as (fd, _features):
        known = uring.probe(fd)
        assert Opcode.READ_FIXED in known
        assert os.readlink(f"/proc/self/fd/{fd}") == "anon_inode:[io_uring]"
    assert not os.path.exists(f"/proc/self/fd/{fd}")
    other = Ring(4)
    assert {opcode for opcode in range(128) if other.supports(opcode)} == {op for op in known if op < 128}
    other.close()


def test_unknown_flags_are_an_errno():
    with uring.raw_ring(4, 1 << 30) as (fd, _features):
        assert fd < 0


def test_no_call_is_made_on_another_system(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(ctypes, "CDLL", None)
    assert uring.call(uring.SETUP, 0, None) == -errno.ENOSYS
    with uring.raw_ring() as (fd, _features):
        assert fd == -errno.ENOSYS
