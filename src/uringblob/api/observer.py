"""Who wants to know of every call of a store: which, how many bytes, how long, how it ended.

A store that nobody observes pays nothing, not even a test for ``None``: :func:`observe` gives the
store a subclass of its own class, made once a class, in which each operation is measured.

One call is one report.  A default that is made of other operations (``commit`` of writes, deletes
and a flush) would report itself and its parts; so what a measured call asks of its own store is not
measured again.  The mark of that is a context variable with a *weak* reference to the
measurement: tasks that copied the context, and calls that a signal handler cut short, are not
silenced for longer than the call lives.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import time
import types
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator
from types import TracebackType
from typing import Any, Protocol, TypeVar, Union, cast

from uringblob.api.async_store import AsyncBlobStore
from uringblob.api.sync_store import BlobStore
from uringblob.api.verify_report import VerifyReport
from uringblob.buffers.views import size_of
from uringblob.logs import logger

Store = TypeVar("Store", bound=Union[BlobStore, AsyncBlobStore])


class StoreObserver(Protocol):
    """Is told of every call of a store when it has ended, in the thread or task that made it.

    A sync store calls it from any of its users' threads, several at once.  It shall be quick: the
    caller waits for it.  What it raises is logged, and changes nothing for the caller.
    """

    def observe(self, operation: str, size_bytes: int, duration_s: float, outcome: str) -> None:
        """Take note of one call.

        :param operation: the method's name; ``"close"`` for ``close`` and ``aclose``.
        :param size_bytes: bytes of frames that the call moved for its caller; 0 where it failed.
            ``read_blobs`` counts the frames that were read, ``verify`` the good ones.
        :param duration_s: seconds from the call to its return, waiting included.
        :param outcome: ``"ok"``, ``"cancelled"``, or the name of the exception's class.
        """
        ...


def observe(store: Store, observer: StoreObserver) -> Store:
    """Have ``observer`` told of every call of ``store`` from now on; return ``store``.

    Works with every :class:`BlobStore` and :class:`AsyncBlobStore`, your own included; file and
    memory stores take ``observer=`` as well.  Several observers are told in the order in which
    they came.  ``alloc_*``, ``needs_flush`` and ``stats`` are not operations: they neither wait
    nor touch the medium.

    :raises TypeError: ``store`` is none, or ``observer`` has no ``observe``.
    """
    if not isinstance(store, (BlobStore, AsyncBlobStore)):
        raise TypeError(f"only a BlobStore or AsyncBlobStore can be observed, not {store!r}")
    if not callable(getattr(observer, "observe", None)):
        raise TypeError(f"an observer has a method observe(), {observer!r} has none")
    observers = getattr(store, "_observers", ())
    if not observers:
        store.__class__ = _measured_class(cast("Hashable", type(store)))
    store._observers = (*observers, observer)  # type: ignore[union-attr] # the measured class's own
    return store


# --- how many bytes a call moved -----------------------------------------------------------------


class _Tally:
    """Counts the writes of a batch while the store takes them: the iterable may be walked once only."""

    def __init__(self) -> None:
        self.items = 0

    def count(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self.items += 1
            yield item


class _Arguments:
    """A call's arguments, as the measures below see them."""

    def __init__(self, page_size: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.page_size = page_size
        self.args = args
        self.kwargs = kwargs
        self._tally = _Tally()

    def tally(self) -> None:
        """Have the frames counted that pass as ``writes``, the first argument."""
        if self.args:
            self.args = (self._tally.count(self.args[0]), *self.args[1:])
        elif "writes" in self.kwargs:
            self.kwargs["writes"] = self._tally.count(self.kwargs["writes"])

    def frame(self, _result: object) -> int:
        """One frame."""
        return self.page_size

    def batch(self, _result: object) -> int:
        """The frames that passed."""
        return self._tally.items * self.page_size

    def good_reads(self, result: list[object]) -> int:
        """The positions without an error."""
        return result.count(None) * self.page_size

    def part(self, _result: object) -> int:
        """The length of ``dst``, the third argument."""
        return size_of(self.args[2] if len(self.args) > 2 else self.kwargs["dst"])

    def verified(self, result: VerifyReport) -> int:
        """The good frames."""
        return result.bytes_checked

    def nothing(self, _result: object) -> int:
        """No frame."""
        return 0


Measure = Callable[[_Arguments, Any], int]

#: Every operation of the trait, with the bytes that it moves.
OPERATIONS: dict[str, Measure] = {
    "read_blob": _Arguments.frame,
    "read_blobs": _Arguments.good_reads,
    "read_blob_range": _Arguments.part,
    "write_blob": _Arguments.frame,
    "write_blobs": _Arguments.batch,
    "write_blobs_with_data_sync": _Arguments.batch,
    "delete_blob": _Arguments.nothing,
    "commit": _Arguments.batch,
    "flush": _Arguments.nothing,
    "has_blob": _Arguments.nothing,
    "checksum": _Arguments.nothing,
    "list_blobs": _Arguments.nothing,
    "verify": _Arguments.verified,
    "close": _Arguments.nothing,
    "aclose": _Arguments.nothing,
}
#: Those whose first argument is an iterable of writes.
_BATCHES = {name for name, measure in OPERATIONS.items() if measure is _Arguments.batch}

# --- measuring -----------------------------------------------------------------------------------


class _Measurement:
    """One call that is being measured."""

    def __init__(self, store: Any, operation: str) -> None:
        self.size_bytes = 0
        self.over = False
        self._outer = _inside.get()
        self._store = store
        self._operation = operation
        self._started = time.perf_counter()

    def __enter__(self) -> None:
        _inside.set(weakref.ref(self))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.over = True
        _inside.set(self._outer)
        duration_s = time.perf_counter() - self._started
        outcome, size_bytes = "ok", self.size_bytes
        if kind is not None:
            size_bytes = 0
            # GeneratorExit: the coroutine was dropped with its loop.
            dropped = issubclass(kind, (asyncio.CancelledError, GeneratorExit))
            outcome = "cancelled" if dropped else kind.__name__
        for observer in self._store._observers:
            try:
                observer.observe(self._operation, size_bytes, duration_s, outcome)
            except Exception:  # noqa: BLE001 - the log has it, and the call it heard of is over
                logger.exception(
                    "the observer %r failed to take note of %s",
                    observer,
                    self._operation,
                    extra={"event": "observer_failed", "operation": self._operation},
                )

    def covers(self, store: object) -> bool:
        """Whether this is a call of ``store`` that goes on still."""
        return self._store is store and not self.over


_inside: contextvars.ContextVar[weakref.ref[_Measurement] | None] = contextvars.ContextVar(
    "uringblob_measurement", default=None
)


def _is_measured(store: object) -> bool:
    """Whether this is asked by a call of ``store`` that is measured already."""
    reference = _inside.get()
    measurement = None if reference is None else reference()
    return measurement is not None and measurement.covers(store)


@functools.cache
def _measured_class(cls: type[Any]) -> type[Any]:
    """Return the subclass of ``cls`` that measures, under the name of ``cls``."""
    face = _measured_async if issubclass(cls, AsyncBlobStore) else _measured_sync
    methods: dict[str, Any] = {name: face(cls, name) for name in OPERATIONS if hasattr(cls, name)}
    namespace = {"__module__": cls.__module__, "__doc__": cls.__doc__, **methods}
    return types.new_class(cls.__name__, (cls,), exec_body=lambda body: body.update(namespace))


def _measured_sync(cls: type[Any], name: str) -> Callable[..., Any]:
    @functools.wraps(getattr(cls, name))
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        method = getattr(cls, name)  # now: a test or a debugger may have replaced it
        if _is_measured(self):
            return method(self, *args, **kwargs)
        given = _Arguments(self.page_size, args, kwargs)
        measurement = _Measurement(self, name)
        with measurement:
            if name in _BATCHES:
                given.tally()
            result = method(self, *given.args, **given.kwargs)
            measurement.size_bytes = OPERATIONS[name](given, result)
            return result

    return call


def _measured_async(cls: type[Any], name: str) -> Callable[..., Any]:
    operation = name.removeprefix("a") if name == "aclose" else name

    @functools.wraps(getattr(cls, name))
    async def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        method = getattr(cls, name)
        if _is_measured(self):
            return await method(self, *args, **kwargs)
        given = _Arguments(self.page_size, args, kwargs)
        measurement = _Measurement(self, operation)
        with measurement:
            if name in _BATCHES:
                given.tally()
            result = await method(self, *given.args, **given.kwargs)
            measurement.size_bytes = OPERATIONS[name](given, result)
            return result

    return call
