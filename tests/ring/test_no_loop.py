"""Any loop with add_reader will do, and none at all too."""

from __future__ import annotations

import asyncio
import logging

import pytest

from uringblob.buffers.slab import Slab
from uringblob.ring import Ring, SqeFlags

pytestmark = pytest.mark.leaks("uvloop makes one pipe for signals per process, when first used")


def asyncio_loop():
    return asyncio.new_event_loop()


def selector_loop():
    import selectors

    return asyncio.SelectorEventLoop(selectors.PollSelector())


def uvloop_loop():
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed for this Python")
    return uvloop.new_event_loop()


@pytest.fixture(params=[asyncio_loop, selector_loop, uvloop_loop], ids=lambda make: make.__name__)
def loop(request):
    loop = request.param()
    yield loop
    loop.close()


def test_reads_through_many_tasks(loop, file):
    async def main():
        ring = Ring(8, loop=asyncio.get_running_loop())
        ring.register_files([file])
        slab = Slab(4096, 16)
        ring.register_slab(slab)

        async def reader(block):
            frame = slab.frame(block, 0)
            for _ in range(20):
                frame.view[:] = bytes(4096)
                assert await ring.read_fixed(0, block * 4096, frame, flags=SqeFlags.FIXED_FILE) == 4096
                assert bytes(frame.view) == bytes([block]) * 4096

        await asyncio.gather(*(reader(block) for block in range(16)))
        assert ring.stats().completed == 320
        await ring.aclose()

    loop.run_until_complete(main())


def test_a_blocking_wait_beside_the_loop(loop):
    async def main():
        ring = Ring(8, loop=asyncio.get_running_loop())
        later = ring.nop()
        assert ring.wait(ring.nop()) == 0
        assert await later == 0
        await ring.aclose()

    loop.run_until_complete(main())


def test_without_a_loop_callbacks_run_at_once_and_awaiting_is_refused(ring, caplog):
    seen = []
    nop = ring.nop()
    nop.add_done_callback(seen.append)
    nop.add_done_callback(lambda _: 1 / 0)
    with caplog.at_level(logging.ERROR, logger="uringblob"):
        assert ring.wait(nop) == 0
    assert seen == [nop]
    assert "ZeroDivisionError" in caplog.text

    async def main():
        await ring.nop()

    with pytest.raises(RuntimeError, match="different loop"):
        asyncio.run(main())
