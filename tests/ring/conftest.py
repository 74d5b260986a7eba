"""Rings without and with a loop, a file with known bytes, and a kernel that can be made to refuse."""

from __future__ import annotations

import asyncio
import os

import pytest

from uringblob.ring import Ring


@pytest.fixture(autouse=True)
def _ring_works_here(needs_uring, locked_memory):
    """Everything in this directory needs io_uring, and some registers buffers."""


@pytest.fixture
def ring():
    """A small ring without a loop: 8 SQEs, 16 CQEs."""
    ring = Ring(8)
    yield ring
    ring.close()


@pytest.fixture
async def loop_ring():
    """A small ring on the running loop."""
    ring = Ring(8, loop=asyncio.get_running_loop())
    yield ring
    await ring.aclose()


@pytest.fixture
def pipe():
    """A pipe: an operation on it stays in flight until the test says otherwise."""
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


@pytest.fixture
def file(disk_dir):
    """A descriptor of a file of 64 KiB; block i of 4 KiB is full of the byte i."""
    fd = os.open(disk_dir / "file", os.O_RDWR | os.O_CREAT, 0o600)
    os.write(fd, b"".join(bytes([block]) * 4096 for block in range(16)))
    yield fd
    os.close(fd)
