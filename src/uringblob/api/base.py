"""What both traits have in common: the methods that neither wait nor do I/O, and :func:`observe`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from uringblob.api.observer import OPERATIONS, StoreObserver, is_part_of_call, observed_call
from uringblob.api.stats import StoreStats
from uringblob.buffers.leases import AlignedBlobBuf
from uringblob.errors import StoreClosed
from uringblob.units import PAGE_SIZE

Store = TypeVar("Store", bound="AnyBlobStore")


class AnyBlobStore:
    """Base of :class:`BlobStore` and :class:`AsyncBlobStore`."""

    _closed = False
    _observers: tuple[StoreObserver, ...] = ()

    @property
    def page_size(self) -> int:
        """The frame size in bytes, the same for the store's whole life."""
        return PAGE_SIZE

    @property
    def closed(self) -> bool:
        """Whether the store was closed."""
        return self._closed

    def alloc_blob_buf_zeroed(self) -> AlignedBlobBuf:
        """Return a zero-filled frame: from the registered pool when it has room, else the heap."""
        self._check_open()
        return AlignedBlobBuf.zeroed(self.page_size)

    def alloc_blob_buf_uninit(self) -> AlignedBlobBuf:
        """Return a frame with undefined contents, to be filled by the caller.

        It may hold bytes that this process read or wrote earlier, never those of another one.
        """
        self._check_open()
        return AlignedBlobBuf.uninit(self.page_size)

    def needs_flush(self) -> bool:
        """Return false only if nothing that returned, or failed half-way, still needs a flush.

        Never waits.  The default cannot know and returns true.
        """
        self._check_open()
        return True

    def stats(self) -> StoreStats:
        """Return a frozen snapshot of the store's counters; works after closing too."""
        return StoreStats(page_size=self.page_size)

    def _signatures(self) -> tuple[bytes, bytes] | None:
        """Return who made the last change and who this opening is, where each change bears its writer."""
        return None

    def _check_open(self) -> None:
        if self.closed:
            raise StoreClosed(f"{self!r} is closed: open it again")

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<{type(self).__name__} page_size={self.page_size} {state}>"


def observe(store: Store, observer: StoreObserver) -> Store:
    """Call ``observer`` after every call of ``store`` from now on; return ``store``.

    Works with every :class:`BlobStore` and :class:`AsyncBlobStore`, your own included; file and
    memory stores take ``observer=`` as well.  Several observers are called in the order in which
    they were added.  ``alloc_*``, ``needs_flush`` and ``stats`` are not operations: they neither wait
    nor touch the medium.

    :raises TypeError: ``store`` is not a store, or ``observer`` has no ``observe``.
    """
    if not isinstance(store, AnyBlobStore):
        raise TypeError(f"only a BlobStore or AsyncBlobStore can be observed, not {store!r}")
    if not callable(getattr(observer, "observe", None)):
        raise TypeError(f"an observer has a method observe(), {observer!r} has none")
    store._observers = (*store._observers, observer)
    cls: type[Any] = type(store)
    for name in OPERATIONS:
        method = getattr(cls, name, None)
        if method is not None and not hasattr(method, "_reports"):
            setattr(cls, name, _reporting(name, method, is_async=hasattr(cls, "aclose")))
    return store


def _reporting(name: str, method: Callable[..., Any], *, is_async: bool) -> Callable[..., Any]:
    """Return a wrapper of ``method`` that reports each call to the store's observers.

    The first :func:`observe` of a class installs it: until then not even the ``if`` is paid for
    (0.3 us a call on CPython 3.11, where ``has_blob`` in memory takes 0.5).
    """
    takes_batch = name in ("write_blobs", "write_blobs_with_data_sync", "commit")
    reported = name.removeprefix("a")
    size = OPERATIONS[name]

    def listed(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """Return the arguments with the batch as a list: an iterator can be walked only once."""
        if takes_batch and (args or "writes" in kwargs):
            return (list(args[0] if args else kwargs.pop("writes")), *args[1:])
        return args

    @functools.wraps(method)
    def call(self: AnyBlobStore, *args: Any, **kwargs: Any) -> Any:
        if not self._observers or is_part_of_call(self):
            return method(self, *args, **kwargs)
        with observed_call(self, reported) as observed:
            args = listed(args, kwargs)
            result = method(self, *args, **kwargs)
            observed.size_bytes = size(self.page_size, args, kwargs, result)
            return result

    @functools.wraps(method)
    async def call_async(self: AnyBlobStore, *args: Any, **kwargs: Any) -> Any:
        if not self._observers or is_part_of_call(self):
            return await method(self, *args, **kwargs)
        with observed_call(self, reported) as observed:
            args = listed(args, kwargs)
            result = await method(self, *args, **kwargs)
            observed.size_bytes = size(self.page_size, args, kwargs, result)
            return result

    reporting: Any = call_async if is_async else call
    reporting._reports = True
    reporting.__doc__ = inspect.getdoc(method)  # inherited; of the wrapper inspect would find none
    return reporting  # type: ignore[no-any-return]


def take_documentation(target: type, source: type) -> None:
    """Copy docstrings from ``source`` to the methods of ``target`` of the same name that have none."""
    for name, member in vars(target).items():
        if inspect.isfunction(member) and member.__doc__ is None:
            member.__doc__ = getattr(getattr(source, name, None), "__doc__", None)
