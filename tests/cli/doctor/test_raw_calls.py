"""The bare system calls: what they say of a real ring, and that they are Linux's alone."""

from __future__ import annotations

import ctypes
import errno
import os
import sys

from uringblob.cli.doctor import raw_calls
from uringblob.ring import Opcode, Ring


def test_a_ring_is_made_probed_and_closed(needs_uring):
    ring = raw_calls.make_ring(4)
    try:
        known = raw_calls.probe(ring.fd)
        assert Opcode.READ_FIXED in known
        assert os.readlink(f"/proc/self/fd/{ring.fd}") == "anon_inode:[io_uring]"
    finally:
        ring.close()
    other = Ring(4)
    assert {opcode for opcode in range(128) if other.supports(opcode)} == {op for op in known if op < 128}
    other.close()


def test_unknown_flags_are_an_errno():
    ring = raw_calls.make_ring(4, 1 << 30)
    assert ring.fd < 0
    ring.close()


def test_no_number_reaches_another_systems_kernel(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(ctypes, "CDLL", None)
    assert raw_calls.call(raw_calls.SETUP, 0, None) == -errno.ENOSYS
    assert raw_calls.make_ring().fd == -errno.ENOSYS
