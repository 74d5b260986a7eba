"""Backups into a store on a simulated disk: what a cut, a fault or a bad frame leaves is judged (row 22)."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from unittest import mock

from sim.judging import contents
from sim.lives import PAGE, forget, frame, guid, lent, meta_of, read_all, small_log, used_image
from uringblob import INCOMPLETE, AsyncBlobStore, BlobCorrupt, BlobGuid, BlobStat, BlobStoreError
from uringblob.api import backup
from uringblob.buffers.views import writable_view
from uringblob.checksums import frame_checksum
from uringblob.guid import guid_bytes
from uringblob.testing.sim.disk import SimDisk
from uringblob.testing.sim.image import Image
from uringblob.testing.sim.loop import SimLoop
from uringblob.testing.sim.store import open_sim_store

Frames = dict[bytes, bytes]

EARLIER: Frames = {guid(n): frame(n) for n in range(1, 5)}
#: One blob as before, one replaced, three new; two are gone.
WANTED: Frames = {guid(2): frame(2), guid(3): frame(33), **{guid(n): frame(n << 16) for n in (7, 8, 9)}}


class Source(AsyncBlobStore):
    """A store that is read only; the ``corrupt`` ones are not those written."""

    page_size = PAGE

    def __init__(self, frames: Frames, *, corrupt=(), opener=None):
        self._frames = frames
        self._corrupt = corrupt
        self._opener = opener

    async def read_blob(self, guid, dst):
        key = guid_bytes(guid)
        if key in self._corrupt:
            raise BlobCorrupt("rotten", key)
        with writable_view(dst, PAGE) as view:
            view[:] = self._frames[key]

    async def checksum(self, guid):
        return frame_checksum(self._frames[guid_bytes(guid)])

    async def stat_blob(self, guid):
        return BlobStat(PAGE, await self.checksum(guid), meta_of(self._frames[guid_bytes(guid)]))

    async def list_blobs(self):
        return list(map(BlobGuid, self._frames))

    async def has_blob(self, guid):
        return guid_bytes(guid) in self._frames

    async def write_blob(self, guid, src):
        raise AssertionError("a backup changes its source")

    delete_blob = write_blob

    async def flush(self):
        pass

    async def _open_backup(self, path):
        return await self._opener()


@contextlib.contextmanager
def small_steps() -> Iterator[None]:
    """Two frames a step, and a log that meets its edges; the blob of an incomplete one has no metadata here."""
    with (
        small_log(segment_bytes=4 * PAGE),
        mock.patch.object(backup, "_STEP_BYTES", 2 * PAGE),
        mock.patch.object(backup, "_TEXT", b""),
    ):
        yield


def image_of(frames: Frames) -> Image:
    """Return a store of ``frames``, closed."""
    loop, disk = SimLoop(), SimDisk(image=used_image(24))

    async def fill() -> None:
        store = await open_sim_store(disk, loop)
        if frames:
            await store.commit(lent(frames))
        await store.aclose()

    loop.run(fill())
    disk.restart()
    return disk.live


class Run:
    """One backup of ``frames`` onto the disk of ``image``, to a path or into an open store."""

    def __init__(self, image: Image, *, to_path: bool, frames=WANTED, corrupt=(), faults=None, seed=0):
        self.loop = SimLoop()
        self.disk = SimDisk(seed, image=image.copy())
        self.to_path = to_path
        self.rng = random.Random(seed)
        self.faults = faults
        self.source = Source(frames, corrupt=corrupt, opener=self._open)
        self.report: backup.BackupReport | None = None
        self.error: BlobStoreError | None = None
        self._store = None

    async def _open(self):
        self._store = await open_sim_store(self.disk, self.loop, rng=self.rng)
        self.disk.on_step, self.disk.faults = self.on_step, self.faults
        return self._store

    def on_step(self, why: str) -> None:
        """What the disk may leave has changed."""

    def run(self) -> Run:
        """Back up; an error of the store is kept."""
        try:
            self.loop.run(self._run())
        except BlobStoreError as error:
            self.error = error
        finally:
            forget(self._store)
        assert not self.loop.complaints, self.loop.complaints
        return self

    async def _run(self) -> None:
        if self.to_path:
            self.report = await self.source.backup("path")
            return
        async with await self._open() as target:
            self.report = await self.source.backup(target)
            found = await read_all(target)
            assert found == self.source._frames or INCOMPLETE in found


def check(found: Frames, earlier: Frames, *, to_path: bool, done=False, wanted=WANTED) -> str:
    """Judge what a store holds after a backup that was cut off; returns which state it is.

    A mixture names itself, and a file with a complete backup never becomes one.
    """
    if found == wanted:
        return "complete"
    assert not done, "a backup that returned is not there"
    if INCOMPLETE in found:
        assert not to_path or not earlier or INCOMPLETE in earlier, "an earlier backup became a mixture"
        for name, content in found.items():
            known = name == INCOMPLETE or content in (earlier.get(name), wanted.get(name))
            assert known, f"{name.hex()} is neither the earlier frame nor the new one"
        return "incomplete"
    assert found == earlier, "a mixture is served as if it were complete"
    return "earlier"


def cut_everywhere(earlier: Frames, *, to_path: bool, resume_every: int = 1) -> dict[str, int]:
    """Cut the power at every step of a backup; judge every image, and go on from it."""
    figures = dict.fromkeys(("power cuts", "disk images", "complete", "incomplete", "earlier", "gone on"), 0)
    images: dict[object, Image] = {}

    class Cut(Run):
        def on_step(self, why: str) -> None:
            for image in self.disk.all_crashes(8, torn=self.rng):
                figures["power cuts"] += 1
                images[image.size, frozenset(image.blocks.items())] = image

    with small_steps():
        whole = Cut(image_of(earlier), to_path=to_path).run()
        assert whole.report is not None
        assert whole.report.ok
        whole.disk.restart()
        check(contents(whole.disk.live)[0], earlier, to_path=to_path, done=True)
        for number, image in enumerate(images.values()):
            found, _ = contents(image)
            figures[check(found, earlier, to_path=to_path)] += 1
            if number % resume_every == 0:
                again = Run(image, to_path=to_path).run()
                assert again.report is not None, again.error
                assert again.report.copied <= len(WANTED)
                again.disk.restart()
                assert contents(again.disk.live)[0] == WANTED, "going on does not complete it"
                figures["gone on"] += 1
    figures["disk images"] = len(images)
    return figures


def fail_everywhere(
    earlier: Frames, make_faults: Callable[[int], object], *, to_path: bool
) -> dict[str, int]:
    """Let each request of a backup fail in turn; judge what is left, and go on from it."""
    figures = {"failed requests": 0, "backups that ended well": 0}
    with small_steps():
        for index in range(1000):
            faults = make_faults(index)
            failed = Run(image_of(earlier), to_path=to_path, faults=faults).run()
            if not faults.struck:
                return figures
            figures["failed requests"] += 1
            figures["backups that ended well"] += failed.error is None
            failed.disk.restart()
            failed.disk.faults = None
            found, _ = contents(failed.disk.live)
            check(found, earlier, to_path=to_path, done=failed.error is None)
            again = Run(failed.disk.live, to_path=to_path).run()
            again.disk.restart()
            assert contents(again.disk.live)[0] == WANTED, "going on does not complete it"
    raise AssertionError("a backup has no end")
