"""What the embedded databases share: they block, so threads serve them, and keys are frame numbers.

Each of the loads' workers is a thread where the database lets threads work side by side
(``writers`` and ``readers`` bound them), because that is how its documentation uses it.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
from collections.abc import Callable, Generator, Sequence
from typing import Any

from uringblob_bench.contenders.base import ThreadContender
from uringblob_bench.contenders.plain_file import drop_caches_below
from uringblob_bench.drive import ThreadCall
from uringblob_bench.load import Load, Params, Verb
from uringblob_bench.picker import Picker
from uringblob_bench.sample import Sample
from uringblob_bench.workdir import WorkDir, noise

_FILL_FRAMES = 32


class Database(abc.ABC):
    """One open database."""

    @abc.abstractmethod
    def get(self, key: bytes) -> object:
        """Return the value; all its bytes were touched."""

    @abc.abstractmethod
    def put(self, items: Sequence[tuple[bytes, bytes]], *, durable: bool) -> None:
        """Replace values in one transaction (or batch)."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close it."""


class KeyValue(ThreadContender):
    """A peer with keys and values."""

    #: Threads that may write at once; more would only queue for its lock.
    writers = 1

    def __init__(self, params: Params, workdir: WorkDir) -> None:
        super().__init__(params, workdir)
        self._file_name = f"{self.name}-{params.page_size}-{params.data_bytes}"
        self.path = workdir.path(self._file_name)

    def cold(self, loads: Sequence[Load]) -> bool:
        return any(load.verb is Verb.READ for load in loads)

    @abc.abstractmethod
    def check(self) -> None:
        """Raise ``CannotRun`` if it is not installed."""

    @abc.abstractmethod
    def opened(self, path: str, *, durable: bool) -> Database:
        """Open or make it."""

    def prepare(self) -> None:
        self.check()
        self.workdir.once(self._file_name, self._fill)

    def _fill(self, path: str) -> None:
        database = self.opened(path, durable=True)
        content = noise(self.params.page_size)
        try:
            for start in range(0, self.params.live, _FILL_FRAMES):
                numbers = range(start, min(start + _FILL_FRAMES, self.params.live))
                database.put([(key_of(n), content) for n in numbers], durable=True)
        finally:
            database.close()

    def turn(self, loads: Sequence[Load], seconds: float) -> list[Sample]:
        """Leave surplus writers out: they would only wait."""
        fewer = [
            load
            if load.verb is Verb.READ
            else dataclasses.replace(load, workers=min(load.workers, self.writers))
            for load in loads
        ]
        return super().turn(fewer, seconds)

    @contextlib.contextmanager
    def session(self, loads: Sequence[Load]) -> Generator[Callable[[Load, int], ThreadCall], None, None]:
        drop_caches_below(self.path)
        durable = any(load.verb in {Verb.BATCH, Verb.COMMIT} for load in loads)
        database = self.opened(self.path, durable=durable)
        once = Picker(self.params.live, once=True)
        try:
            yield lambda load, number: self._call(database, load, number, once)
        finally:
            database.close()

    def _call(self, database: Database, load: Load, number: int, once: Picker) -> ThreadCall:
        if load.verb is Verb.READ:
            return lambda: database.get(key_of(once.one()))
        picker = Picker(self.params.live, seed=number)
        content = noise(self.params.page_size)
        durable = load.verb is not Verb.WRITE
        return lambda: database.put([(key_of(n), content) for n in picker.some(load.frames)], durable=durable)

    def base_settings(self, **more: Any) -> dict[str, Any]:
        """Return what all of them say."""
        return {"durability": self.durability, "writing threads": self.writers, **more}


def key_of(number: int) -> bytes:
    """Return the key of a frame."""
    return number.to_bytes(16, "big")
