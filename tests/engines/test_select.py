"""The choice of an engine: by trying, with its reason kept, and a remedy where there is one."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import sys
import types

import pytest

from uringblob import _native
from uringblob.engines import select
from uringblob.engines.direct import DirectIO, DirectRefused
from uringblob.engines.request import EngineRequest
from uringblob.engines.select import open_engine
from uringblob.engines.unavailable import RingUnavailable
from uringblob.errors import EngineUnavailable, errno_name

BLOCK = 4096


@pytest.fixture
def fd(store_path):
    descriptor = os.open(store_path, os.O_RDWR | os.O_CREAT, 0o600)
    os.write(descriptor, bytes(2 * BLOCK))
    yield descriptor
    os.close(descriptor)  # which also shows that nothing else closed it


@pytest.fixture
def request_of(fd, store_path):
    def make(engine="auto", **options):
        wanted = {"direct": None, "buffers": 4, "queue_depth": 8, "read_only": False, "page_size": BLOCK}
        loop = asyncio.get_running_loop()
        return EngineRequest(fd=fd, path=store_path, engine=engine, loop=loop, **{**wanted, **options})

    return make


@pytest.fixture
def ring_that_fails(monkeypatch):
    """Install an io_uring engine whose start raises ``error``."""

    def install(error):
        class UringEngine:
            def __init__(self, request, direct_io, memory_align):
                raise error

        module = types.ModuleType("uringblob.engines.uring.engine")
        module.UringEngine = UringEngine
        monkeypatch.setitem(sys.modules, "uringblob.engines.uring.engine", module)
        if _native.lib is None:
            monkeypatch.setattr(_native, "lib", object())

    return install


async def works(engine):
    """Show that ``engine`` moves bytes, and close it."""
    with engine.pool.lease() as buf:
        buf.view[:] = b"w" * BLOCK
        assert await engine.write_then_sync(0, [buf._frame(engine.pool)]) == (BLOCK, 0)
        buf.view[:] = bytes(BLOCK)
        assert await engine.read(0, [buf._frame(engine.pool)]) == BLOCK
        assert bytes(buf.view) == b"w" * BLOCK
    await engine.close()
    return True


# ---- what is asked for --------------------------------------------------------------------------


async def test_auto_takes_io_uring_where_it_works(needs_uring, request_of):
    engine = open_engine(request_of())
    assert (engine.name, engine.reason) == ("io_uring", "io_uring works here")
    assert await works(engine)


async def test_an_engine_asked_for_by_name_is_that_engine(request_of, engine):
    opened = open_engine(request_of(engine))
    assert (opened.name, opened.reason) == (engine, "asked for by name")
    assert await works(opened)


# ---- refusals -----------------------------------------------------------------------------------

#: Stage, errno; words of the remedy.
REFUSALS = {
    "docker": ("setup", errno.EPERM, ["seccomp", "kernel.io_uring_disabled"]),
    "podman, gVisor": ("setup", errno.ENOSYS, ["gVisor", "seccomp", "kernel"]),
    "managed kubernetes": ("setup", errno.EOPNOTSUPP, ["seccomp"]),
    "no locked memory": ("setup", errno.ENOMEM, ["RLIMIT_MEMLOCK", "ulimit -l"]),
    "no descriptors": ("setup", errno.EMFILE, ["RLIMIT_NOFILE"]),
    "register": ("register files", errno.EACCES, ["seccomp"]),
    "enter": ("nop", errno.EPERM, ["seccomp"]),
    "first read": ("first read", errno.EINVAL, ["newer kernel"]),
    "something new": ("nop", errno.EXDEV, []),
}


@pytest.mark.parametrize(("stage", "code", "remedy"), REFUSALS.values(), ids=REFUSALS)
async def test_auto_falls_back_and_says_why(request_of, ring_that_fails, caplog, stage, code, remedy):
    ring_that_fails(RingUnavailable(stage, code, "a hint"))
    with caplog.at_level(logging.INFO, "uringblob"):
        engine = open_engine(request_of())
    assert engine.name == "pread"
    for text in (engine.reason, caplog.text):
        assert stage in text
        assert errno_name(code) in text
        assert "a hint" in text
    assert all(word in caplog.text for word in remedy)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert await works(engine)


@pytest.mark.parametrize(("stage", "code", "remedy"), REFUSALS.values(), ids=REFUSALS)
async def test_by_name_it_is_an_error_with_the_cure(
    request_of, ring_that_fails, store_path, stage, code, remedy
):
    ring_that_fails(RingUnavailable(stage, code))
    with pytest.raises(EngineUnavailable) as caught:
        open_engine(request_of("io_uring"))
    assert (caught.value.errno, caught.value.stage) == (code, stage)
    for word in [stage, errno_name(code), store_path, "engine='auto'", *remedy]:
        assert word in str(caught.value)


FAILURES = {
    "system call": (OSError(errno.ENFILE, "no files"), "setup", errno.ENFILE),
    "memory": (MemoryError("no slab"), "setup", errno.ENOMEM),
    "import": (ImportError("no such symbol"), "import", None),
    "loop": (NotImplementedError("no add_reader"), "event loop", None),
}


@pytest.mark.parametrize(("error", "stage", "code"), FAILURES.values(), ids=FAILURES)
async def test_whatever_fails_is_a_refusal(request_of, ring_that_fails, error, stage, code):
    ring_that_fails(error)
    with pytest.raises(EngineUnavailable) as caught:
        open_engine(request_of("io_uring"))
    assert (caught.value.errno, caught.value.stage) == (code, stage)
    engine = open_engine(request_of())
    assert stage in engine.reason
    assert await works(engine)


async def test_a_mistake_of_ours_is_not_hidden(request_of, ring_that_fails):
    ring_that_fails(AttributeError("typo"))
    with pytest.raises(AttributeError):
        open_engine(request_of())


async def test_without_the_extension_the_reason_is_the_doors(request_of, monkeypatch):
    monkeypatch.setattr(_native, "lib", None)
    monkeypatch.setattr(_native, "unavailable_reason", "the extension is not built")
    engine = open_engine(request_of())
    assert "import (the extension is not built)" in engine.reason
    assert await works(engine)
    with pytest.raises(EngineUnavailable, match="not built") as caught:
        open_engine(request_of("io_uring"))
    assert (caught.value.errno, caught.value.stage) == (None, "import")


async def test_elsewhere_the_absence_of_io_uring_is_no_warning(
    request_of, ring_that_fails, monkeypatch, caplog
):
    ring_that_fails(RingUnavailable("import", 0, "io_uring exists on Linux only"))
    monkeypatch.setattr(sys, "platform", "darwin")
    with caplog.at_level(logging.INFO, "uringblob"):
        engine = open_engine(request_of())
    assert [record.levelno for record in caplog.records] == [logging.INFO]
    await engine.close()


# ---- O_DIRECT -----------------------------------------------------------------------------------


async def test_direct_true_false_and_none(needs_direct, request_of, engine):
    for direct, expected in [(True, True), (False, False), (None, True)]:
        opened = open_engine(request_of(engine, direct=direct))
        assert opened.direct_io is expected
        assert (opened.memory_align == 1) is not expected
        assert await works(opened)


async def test_without_o_direct_it_is_buffered_unless_required(request_of, engine, monkeypatch, store_path):
    monkeypatch.delattr(os, "O_DIRECT", raising=False)
    opened = open_engine(request_of(engine))
    assert (opened.direct_io, opened.memory_align) == (False, 1)
    assert await works(opened)
    with pytest.raises(EngineUnavailable, match="no O_DIRECT") as caught:
        open_engine(request_of(engine, direct=True))
    assert (caught.value.errno, caught.value.stage) == (None, "direct")
    assert store_path in str(caught.value)


async def test_a_refused_direct_write_names_its_errno(request_of, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise DirectRefused("a direct write was refused: EINVAL", errno.EINVAL)

    monkeypatch.setattr(select, "require_direct", refuse)
    with pytest.raises(EngineUnavailable, match="direct write was refused") as caught:
        open_engine(request_of(direct=True))
    assert caught.value.errno == errno.EINVAL


async def test_the_decision_reaches_either_engine(request_of, ring_that_fails, monkeypatch):
    monkeypatch.setattr(select, "enable_direct", lambda *_a, **_k: DirectIO(True, 8, ""))
    ring_that_fails(RingUnavailable("setup", errno.EPERM))
    engine = open_engine(request_of())
    assert (engine.direct_io, engine.memory_align) == (True, 8)
    await engine.close()


# ---- buffers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("page_size", "buffers", "asked"),
    [
        (BLOCK, None, 64),
        (512 * 1024, None, 64),
        (1024 * 1024, None, 32),
        (16 * 1024 * 1024, None, 2),
        (BLOCK, 0, 0),
        (BLOCK, 7, 7),
    ],
)
async def test_how_many_buffers(request_of, page_size, buffers, asked):
    engine = open_engine(request_of("pread", page_size=page_size, buffers=buffers))
    pool = engine.pool
    assert (pool.asked, pool.capacity, pool.registered, pool.leased) == (asked, asked, False, 0)
    assert pool.reason == "the pread engine registers no buffers"
    await engine.close()


async def test_without_memory_for_a_pool_the_heap_serves(request_of, monkeypatch):
    def refuse(_size, _count):
        raise OSError(errno.ENOMEM, "no memory")

    monkeypatch.setattr(select, "Slab", refuse)
    engine = open_engine(request_of("pread"))
    assert (engine.pool.asked, engine.pool.capacity) == (4, 0)
    assert "no memory for 4 frames" in engine.pool.reason
    assert await works(engine)
