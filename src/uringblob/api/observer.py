"""Observers, and what an observed call does; :mod:`uringblob.api.base` decides which calls are observed."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from uringblob.buffers.views import size_of
from uringblob.logs import logger


class StoreObserver(Protocol):
    """Called after each call of a store, in the thread or task that made it.

    A sync store calls it from any of its users' threads, several at once.  It should be quick: the
    caller waits for it.  What it raises is logged, and changes nothing for the caller.  Calls of the same
    store that it makes itself are not reported: they would report themselves for ever.
    """

    def observe(self, operation: str, size_bytes: int, duration_s: float, outcome: str) -> None:
        """Record one call.

        :param operation: the method's name; ``"close"`` for ``close`` and ``aclose``.
        :param size_bytes: bytes of frames that the call moved for its caller; 0 where it failed.
            ``read_blobs`` counts the frames that were read, ``verify`` the good ones, ``backup`` those written.
        :param duration_s: seconds from the call to its return, waiting included.
        :param outcome: ``"ok"``, ``"cancelled"``, or the name of the exception's class.  The exception itself
            is ``sys.exc_info()[1]`` while this runs; do not keep it, for it holds the call's buffers.
        """


#: Each operation, with the bytes that it moves: of frame size, arguments and result.  An iteration is
#: reported as the ``list_blobs`` that it begins with: its user may go on with it for hours.
OPERATIONS: dict[str, Callable[[int, tuple[Any, ...], dict[str, Any], Any], int]] = {
    "read_blob": lambda size, *_: size,
    "read_blobs": lambda size, _args, _kwargs, result: result.count(None) * size,
    "read_blob_range": lambda _, args, kwargs, _result: size_of(
        kwargs["dst"] if "dst" in kwargs else args[2]
    ),
    "write_blob": lambda size, *_: size,
    **dict.fromkeys(
        ("write_blobs", "write_blobs_with_data_sync", "commit"),
        lambda size, args, _kwargs, _result: size * len(args[0]) if args else 0,
    ),
    "verify": lambda _size, _args, _kwargs, result: result.bytes_checked,
    "backup": lambda _size, _args, _kwargs, result: result.bytes,
    **dict.fromkeys(("delete_blob", "flush", "vacuum", "close", "aclose"), lambda *_: 0),
    **dict.fromkeys(
        ("has_blob", "has_blobs", "checksum", "stat_blob", "list_blobs", "snapshot"), lambda *_: 0
    ),
}


class _Call:
    def __init__(self, store: Any) -> None:
        self.store, self.size_bytes = store, 0


#: The observed call that this code is part of, in its task or thread and the tasks begun in it.  Weak, so
#: that a call that a signal handler cut short ends with its frame.
_current: contextvars.ContextVar[Callable[[], _Call | None]] = contextvars.ContextVar(
    "uringblob_observed_call", default=lambda: None
)


def is_part_of_call(store: object) -> bool:
    """Whether this runs inside an observed call of ``store``: nested calls are not reported."""
    call = _current.get()()
    return call is not None and call.store is store


@contextlib.contextmanager
def observed_call(store: Any, name: str) -> Iterator[_Call]:
    """Report the body to the observers of ``store`` as one call of ``name``."""
    outer, call, outcome, started = _current.get(), _Call(store), "ok", time.perf_counter()
    try:
        _current.set(weakref.ref(call))
        yield call
    except BaseException as error:
        call.size_bytes = 0
        # GeneratorExit: the coroutine was dropped with its loop.
        cancelled = isinstance(error, (asyncio.CancelledError, GeneratorExit))
        outcome = "cancelled" if cancelled else type(error).__name__
        raise
    finally:
        duration_s = time.perf_counter() - started
        try:
            for observer in store._observers:
                _report(observer, name, call.size_bytes, duration_s, outcome)
        finally:
            call.store = None  # for tasks that copied the context and outlive the call
            _current.set(outer)


def _report(observer: StoreObserver, name: str, size_bytes: int, duration_s: float, outcome: str) -> None:
    try:
        observer.observe(name, size_bytes, duration_s, outcome)
    except Exception:  # noqa: BLE001 - logged; the call that it reports has ended
        logger.exception(
            "the observer %r failed to record %s",
            observer,
            name,
            extra={"event": "observer_failed", "operation": name},
        )
