"""Plain ``os`` calls with O_DIRECT and aligned huge-page memory: what a thread can do without a library."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Sequence
from typing import Any

from uringblob.checksums import frame_checksum
from uringblob_bench.contenders.base import ThreadContender
from uringblob_bench.contenders.store import StoreFiller
from uringblob_bench.drive import ThreadCall
from uringblob_bench.load import Load, Params, Verb
from uringblob_bench.picker import Picker
from uringblob_bench.workdir import WorkDir, aligned_frames, direct_flag


class OsCalls(ThreadContender):
    """``preadv`` and ``pwrite`` (+ ``fdatasync``); ``on_store`` reads the very file of the store.

    ``checksummed``: what was read is looked at, as the store does and as whoever wants it will.
    """

    name = "os calls"
    durability = "pwrite, then fdatasync"

    def __init__(
        self, params: Params, workdir: WorkDir, *, on_store: bool = False, checksummed: bool = False
    ) -> None:
        super().__init__(params, workdir)
        self._checksummed = checksummed
        self._filler = StoreFiller(params, workdir, "auto") if on_store else None

    def settings(self) -> dict[str, Any]:
        return {
            "direct_io": bool(direct_flag(self._path())),
            "file": os.path.basename(self._path()),
            "checksums": self._checksummed,
        }

    def _path(self) -> str:
        if self._filler is not None:
            return self._filler.path
        return self.workdir.raw_file(self.params.data_bytes)

    def prepare(self) -> None:
        if self._filler is not None:
            self._filler.prepare()
        self._path()

    @contextlib.contextmanager
    def session(self, loads: Sequence[Load]) -> Generator[Callable[[Load, int], ThreadCall], None, None]:
        changes = any(load.verb is not Verb.READ for load in loads)
        if changes and self._filler is not None:
            raise ValueError("a store's file is only read from outside")
        path = self._path()
        descriptor = os.open(path, (os.O_RDWR if changes else os.O_RDONLY) | direct_flag(path))
        try:
            yield lambda load, number: self._call(descriptor, load, number)
        finally:
            os.close(descriptor)

    def _call(self, descriptor: int, load: Load, number: int) -> ThreadCall:
        size = self.params.page_size
        picker = Picker(self.params.frames, seed=number)
        views = [frame.view for frame in aligned_frames(size, load.frames)]
        if load.verb is Verb.READ:
            look = frame_checksum if self._checksummed else None

            def read() -> None:
                os.preadv(descriptor, views, picker.one() * size)
                if look is not None:
                    look(views[0])

            return read

        def change() -> None:
            for view, at in zip(views, picker.some(load.frames), strict=True):
                os.pwrite(descriptor, view, at * size)
            if load.verb is not Verb.WRITE:
                os.fdatasync(descriptor)

        return change
