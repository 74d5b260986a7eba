"""The bridge over which one asynchronous text serves synchronous stores too.

The trait's defaults are coroutines.  A synchronous store runs them by stepping the coroutine
once: every awaitable it meets is a method of an ``SyncToAsyncAdapter``, which calls the synchronous store
and never suspends.  No event loop is needed, and one that runs in the thread is not touched.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run_to_completion(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run ``coroutine`` to its end here and now, and return its result.

    An exception that a signal handler raises meanwhile goes through the coroutine like any other.

    :raises RuntimeError: the coroutine wants to wait, which only an event loop can grant.
    """
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        coroutine.close()
    raise RuntimeError(f"{coroutine!r} waits for something: run it on an event loop")
