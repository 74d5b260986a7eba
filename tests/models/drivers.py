"""One store behind one synchronous handle, whichever face and engine it has.

``call(name, *args)`` runs one public method, ``gather(calls)`` several at once.  ``die`` is the end
of the process: nothing is closed, flushed or sealed; ``crash`` the end of the power.  A driver says
by ``can`` which of them it has.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import errno
import inspect
import os
import random
import shutil
import tempfile

from behaviour.faults import FailingWrites
from sim.lives import forget, lend, lend_afresh, used_image
from uringblob import AsyncFileBlobStore, AsyncMemoryBlobStore, FileBlobStore, MemoryBlobStore
from uringblob.testing.sim.disk import Fault, SimDisk
from uringblob.testing.sim.loop import SimLoop
from uringblob.testing.sim.store import open_sim_store

PAGE = 4096
#: Errors that leave the store in use, or poison it, by what they strike.
ERRORS = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Simulated:
    """The store on a simulated disk: every fault and every crash."""

    can = frozenset({"reopen", "die", "crash", "fault"})

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        lend_afresh()
        self.loop = SimLoop()
        self.disk = SimDisk(seed, image=used_image(12))
        self.open()

    def open(self) -> None:
        async def opened():
            return await open_sim_store(self.disk, self.loop, rng=self.rng)

        self.store = self.loop.run(opened())
        self.store._core.upkeep.compaction_blocks_min = 6
        self.faulted = False  #: a request has failed since it was opened

    def call(self, name, *args):
        return self.loop.run(_awaited(self.store, name, _placed(args)))

    def gather(self, calls):
        async def together():
            return await asyncio.gather(
                *(_awaited(self.store, name, _placed(args)) for name, *args in calls), return_exceptions=True
            )

        return self.loop.run(together())

    @contextlib.contextmanager
    def fault(self, nth: int, number: int):
        """The ``nth`` write, growth or flush from now on fails; reads do not."""
        left, self.faulted = [nth], True

        def faults(_index, kind):
            left[0] -= kind != "read"
            return Fault(number) if left[0] == 0 and kind != "read" else None

        self.disk.faults = faults
        try:
            yield
        finally:
            self.disk.faults = None

    def settle(self) -> None:
        self.loop.run(_settled(self.store._core))

    def die(self) -> None:
        forget(self.store)

    def crash(self) -> None:
        forget(self.store)
        self.disk = SimDisk(self.rng.getrandbits(32), image=self.disk.crash(self.rng))

    def end(self) -> None:
        forget(self.store)
        assert not self.loop.complaints, self.loop.complaints


class Memory:
    """A memory store: nothing outlives it."""

    can: frozenset[str] = frozenset()

    def __init__(self, kind) -> None:
        self.loop = asyncio.new_event_loop()
        self.store = kind(PAGE)

    def call(self, name, *args):
        return self.loop.run_until_complete(_awaited(self.store, name, args))

    def gather(self, calls):
        return [_outcome(self.call, name, *args) for name, *args in calls]

    def end(self) -> None:
        close = "aclose" if isinstance(self.store, AsyncMemoryBlobStore) else "close"
        self.call(close)
        self.loop.close()


class RealAsync:
    """The asynchronous file store on a real disk and a loop of its own."""

    can = frozenset({"reopen", "die", "fault"})

    def __init__(self, root, engine) -> None:
        self.directory = tempfile.mkdtemp(dir=root)
        self.path = os.path.join(self.directory, "store")
        self.engine = engine
        self.loop = asyncio.new_event_loop()
        self.open()

    def open(self) -> None:
        async def opened():
            return await AsyncFileBlobStore.open(self.path, page_size=PAGE, engine=self.engine, buffers=4)

        self.store = self.loop.run_until_complete(opened())
        self.core_store._core.upkeep.compaction_blocks_min = 6

    @property
    def core_store(self) -> AsyncFileBlobStore:
        return self.store

    def call(self, name, *args):
        return self.loop.run_until_complete(_awaited(self.store, name, args))

    def gather(self, calls):
        async def together():
            return await asyncio.gather(
                *(_awaited(self.store, name, args) for name, *args in calls), return_exceptions=True
            )

        return self.loop.run_until_complete(together())

    @contextlib.contextmanager
    def fault(self, nth: int, number: int):
        with FailingWrites(self.core_store, number, kind="any", nth=nth, count=1):
            yield

    def settle(self) -> None:
        self.loop.run_until_complete(_settled(self.store._core))

    def die(self) -> None:
        """What is in flight is waited for, as the kernel does it; then nothing is flushed or sealed."""

        async def ended():
            store = self.store
            await store._core.upkeep.end()
            await store._core.medium.engine.close()
            store._core.medium.engine.pool.retire()
            store._core.file.close()
            forget(store)

        self.loop.run_until_complete(ended())

    def end(self) -> None:
        if not self.store.closed:
            with contextlib.suppress(Exception):
                self.call("aclose")
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        shutil.rmtree(self.directory)


class RealSync(RealAsync):
    """The synchronous face; its calls come from several threads when they come together."""

    can = frozenset({"reopen", "fault"})

    def open(self) -> None:
        self.store = FileBlobStore.open(self.path, page_size=PAGE, engine=self.engine, buffers=4)
        self.core_store._core.upkeep.compaction_blocks_min = 6

    @property
    def core_store(self) -> AsyncFileBlobStore:
        return self.store._checked

    def settle(self) -> None:
        self.store._handle.run(_settled, self.core_store._core)

    def call(self, name, *args):
        return getattr(self.store, "close" if name == "aclose" else name)(*args)

    def gather(self, calls):
        with concurrent.futures.ThreadPoolExecutor(len(calls)) as threads:
            futures = [threads.submit(_outcome, self.call, name, *args) for name, *args in calls]
            return [future.result() for future in futures]


async def _settled(core) -> None:
    """What the store does for itself has ended."""
    await core.queue.log.wait_quiet()
    await core.upkeep.wait()
    await core.queue.log.wait_quiet()


def _placed(args):
    """Frames in memory whose place chance does not decide, or a seed would not replay its history."""
    if isinstance(args, bytes) and len(args) == PAGE:
        return lend(args)
    if isinstance(args, (list, tuple)):
        return type(args)(map(_placed, args))
    return args


async def _awaited(store, name, args):
    result = getattr(store, name)(*args)
    return await result if inspect.isawaitable(result) else result


def _outcome(call, *args):
    try:
        return call(*args)
    except Exception as error:
        return error


#: Name, and how to make one; ``root`` is a directory on a real disk.
DRIVERS = {
    "simulated": lambda root, seed: Simulated(seed),
    "memory sync": lambda root, seed: Memory(MemoryBlobStore),
    "memory async": lambda root, seed: Memory(AsyncMemoryBlobStore),
    "io_uring sync": lambda root, seed: RealSync(root, "io_uring"),
    "io_uring async": lambda root, seed: RealAsync(root, "io_uring"),
    "pread sync": lambda root, seed: RealSync(root, "pread"),
    "pread async": lambda root, seed: RealAsync(root, "pread"),
}
