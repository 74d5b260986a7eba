"""Every error the library raises on purpose.

::

    Exception
     └─ BlobStoreError
         ├─ BlobNotFound (also KeyError)     no blob has this guid
         ├─ BlobCorrupt                      one blob's bytes are not those written
         ├─ BlobChanged                      a snapshot's frame was replaced in its store
         ├─ ConditionFailed                  a commit's condition does not hold
         ├─ StoreCorrupt                     the file is not a store, or its map is damaged
         ├─ StoreLocked                      another opener holds the file
         ├─ StoreClosed                      you closed it
         ├─ StoreReadOnly                    you opened it read_only
         ├─ StorePoisoned                    it broke: close and open it again
         ├─ TierDiverged                     a tier's two stores have both gone on alone
         ├─ WriterFenced                     another writer took a store in a bucket over
         ├─ PageSizeMismatch                 the store has another frame size
         ├─ EngineUnavailable                the requested engine cannot run here
         └─ BlobStoreIOError (also OSError)  the system refused an I/O

Misuse is ``ValueError``, ``TypeError`` or ``RuntimeError`` and never changes a store.
"""

from __future__ import annotations

import copy
import errno as _errno
import os
import re
import typing
import uuid

from uringblob.guid import GUID_SIZE, BlobGuid, GuidLike, is_guid_text

__all__ = [
    "NO_SPACE_ERRNOS",
    "BlobChanged",
    "BlobCorrupt",
    "BlobNotFound",
    "BlobStoreError",
    "BlobStoreIOError",
    "ConditionFailed",
    "EngineUnavailable",
    "PageSizeMismatch",
    "StoreClosed",
    "StoreCorrupt",
    "StoreLocked",
    "StorePoisoned",
    "StoreReadOnly",
    "TierDiverged",
    "WriterFenced",
    "check_limit",
    "check_rc",
    "encodable",
    "errno_name",
    "one_each",
    "with_remedy",
]

E = typing.TypeVar("E", bound=BaseException)

#: The file system had no room: the outcome of the operation is known.
NO_SPACE_ERRNOS = frozenset({_errno.ENOSPC, _errno.EDQUOT, _errno.EFBIG})


#: A surrogate without its pair; Python decodes bytes of a path that are no UTF-8 to the low ones.
_LONE = re.compile("[\ud800-\udfff]")
#: What a caller can do about an errno, where its text does not say it.
_REMEDIES = {
    _errno.ENOSPC: "delete blobs, or free space on the file system, and try again",
    _errno.EDQUOT: "delete blobs, or raise the quota, and try again",
    _errno.EFBIG: "delete blobs, or raise the limit on the size of files ('ulimit -f'), and try again",
    _errno.EIO: "the kernel's log (dmesg) says what the device answered",
}


def encodable(text: str) -> str:
    """Return ``text`` with lone surrogates escaped, so that any path can be printed and logged."""
    return text if text.isascii() else _LONE.sub(_escape, text)


def _escape(lone: re.Match[str]) -> str:
    code = ord(lone.group())
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


class BlobStoreError(Exception):
    """The root of the library's errors.  A message can always be encoded as UTF-8.

    An error can be copied and pickled, with its attributes, notes and cause.  A cause that another
    process may not be able to unpickle becomes a ``RuntimeError`` with its text.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(encodable(arg) if isinstance(arg, str) else arg for arg in args))

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.args, _state_of(self), _portable(self.__cause__)))

    def __copy__(self: E) -> E:
        twin = _rebuild(type(self), self.args, _state_of(self), self.__cause__)
        twin.__suppress_context__ = self.__suppress_context__
        return twin


class BlobNotFound(BlobStoreError, KeyError):
    """No blob has this guid; ``guid`` names it.  Write it first, or call ``has_blob``.

    A store of yours may raise it with only a text: ``guid`` is ``None`` then.
    """

    def __init__(self, guid: GuidLike | str | None = None, message: str | None = None) -> None:
        self.guid = _known_guid(guid)
        if message is None:
            given = "no such blob" if guid is None else str(guid)
            message = given if self.guid is None else f"no blob {self.guid}"
        super().__init__(message)

    def __str__(self) -> str:
        # KeyError would show the message's repr.
        return str(self.args[0])


class BlobCorrupt(BlobStoreError):
    """The bytes on the medium are not those written: restore this blob from elsewhere.

    ``guid`` and ``offset``, the frame's place in the file in bytes, are ``None`` if not known.  All
    other blobs stay readable.
    """

    def __init__(self, message: str, guid: GuidLike | None = None, offset: int | None = None) -> None:
        self.guid = _known_guid(guid)
        self.offset = offset
        super().__init__(message)


class BlobChanged(BlobStoreError):
    """A snapshot cannot show a blob any more: its frame was replaced or deleted in the store.

    Only the default ``snapshot()`` of a store raises it; file and memory stores keep the frame.
    ``guid`` names the blob.
    """

    def __init__(self, message: str, guid: GuidLike | None = None) -> None:
        self.guid = _known_guid(guid)
        super().__init__(message)


class ConditionFailed(BlobStoreError):
    """A condition of a commit does not hold: nothing of that commit was applied.

    ``guid`` names the first blob of which that is so.  ``expected`` and ``found`` are checksums; ``None``
    stands for no blob.
    """

    def __init__(self, guid: GuidLike, expected: int | None, found: int | None, store: str = "") -> None:
        self.guid = _known_guid(guid)
        self.expected = expected
        self.found = found
        wanted = "must not be there" if expected is None else f"must have checksum {expected:#018x}"
        actual = "is not there" if found is None else f"has checksum {found:#018x}"
        super().__init__(
            f"{store}{': ' if store else ''}nothing of this commit was applied, because blob {self.guid} "
            f"{wanted} and {actual}: read it again, and decide anew"
        )


class StoreCorrupt(BlobStoreError):
    """The file is not a store, or its superblocks or log are damaged beyond a torn tail.

    ``offset`` is the place in the file, in bytes, or ``None``.
    """

    def __init__(self, message: str = "", offset: int | None = None) -> None:
        self.offset = offset
        super().__init__(message)


class StoreLocked(BlobStoreError):
    """Another opener held the store for all of ``lock_timeout``: close it there, or wait longer."""


class StoreClosed(BlobStoreError):
    """You used a store after closing it: open it again."""


class StoreReadOnly(BlobStoreError):
    """You called a changing method of a store opened with ``read_only=True``."""


class StorePoisoned(BlobStoreError):
    """An earlier I/O failed in a way that leaves the medium's contents unknown.

    ``__cause__`` is that first failure.  Reads go on; every change and flush raises this.
    The change of the call that raises this was *not* applied.
    Close the store and open it again: recovery finds what is durable.
    """


class TierDiverged(BlobStoreError):
    """Another writer has changed the remote store while the local one has what was not uploaded.

    Nothing was changed.  Save what is needed of the local store, then open the tier with ``discard_local=True``.
    """


class WriterFenced(BlobStoreError):
    """Another writer opened this store in a bucket, and took it over: the change was *not* applied.

    So is every later change and flush; reads go on, as of the last group of this writer.  Open the store again
    to take it over in turn, once it is clear that the other one is to stop.
    """


class PageSizeMismatch(BlobStoreError):
    """The store was created with another frame size: open it without ``page_size``."""


class EngineUnavailable(BlobStoreError):
    """The engine requested by name cannot run here.

    ``errno`` (or ``None``) and ``stage`` are what was refused; the message names the likely
    cause and its remedy.  ``engine="auto"`` falls back instead of raising.
    """

    def __init__(self, message: str, errno: int | None = None, stage: str = "") -> None:
        self.errno = errno
        self.stage = stage
        super().__init__(message)


class BlobStoreIOError(BlobStoreError, OSError):
    """The system refused an I/O.

    ``errno`` is the reason; ``guid`` names the blob and ``offset`` the place in the file, in bytes,
    where one of them is at fault.  ``applied`` is ``False`` where the change is known not to be applied,
    ``None`` where the outcome is unknown until the store is opened again.
    """

    def __init__(
        self,
        errno: int,
        message: str,
        *,
        guid: GuidLike | None = None,
        offset: int | None = None,
        applied: bool | None = False,
    ) -> None:
        super().__init__(errno, message)
        self.guid = _known_guid(guid)
        self.offset = offset
        self.applied = applied


def _state_of(error: BaseException) -> dict[str, typing.Any]:
    state = dict(error.__dict__)
    if "__notes__" in state:
        state["__notes__"] = list(state["__notes__"])
    return state


def _portable(cause: BaseException | None) -> BaseException | None:
    """Return ``cause`` if another process can unpickle it, else its text."""
    if cause is None or isinstance(cause, BlobStoreError):
        return cause
    return RuntimeError(f"{type(cause).__name__}: {cause}")


def _rebuild(
    kind: type[E], args: tuple[typing.Any, ...], state: dict[str, typing.Any], cause: BaseException | None
) -> E:
    """Make an error of ``kind`` without its ``__init__``, which may take other arguments."""
    error = kind.__new__(kind, *args)
    (OSError if isinstance(error, OSError) else Exception).__init__(error, *args)
    error.__dict__.update(state)
    if cause is not None:
        error.__cause__ = cause
    return error


def _known_guid(value: object) -> BlobGuid | None:
    """Return ``value`` as a guid, else ``None``: a ``ValueError`` here would hide the error itself."""
    if isinstance(value, uuid.UUID) or (isinstance(value, bytes) and len(value) == GUID_SIZE):
        return BlobGuid(value)
    return BlobGuid(value) if isinstance(value, str) and is_guid_text(value) else None


def with_remedy(text: str, errno: int) -> str:
    """Return ``text``, and the remedy for ``errno`` where one is known."""
    remedy = _REMEDIES.get(errno)
    return f"{text}: {remedy}" if remedy else text


def check_limit(size_bytes: int, max_bytes: int | None, what: str) -> None:
    """Raise what a full disk would for ``what``, if it takes more than a store's ``max_bytes``."""
    if max_bytes is not None and size_bytes > max_bytes:
        raise BlobStoreIOError(
            _errno.ENOSPC,
            f"{what}: {errno_name(_errno.ENOSPC)}: the limit of this store is max_bytes={max_bytes}: "
            "delete blobs, or raise it with set_max_bytes()",
        )


def one_each(error: E) -> E:
    """Return a copy of ``error``, with the same cause, for one of several callers.

    Each caller's traceback and notes would otherwise be added to the same object.
    """
    try:
        twin = copy.copy(error)
    except Exception:  # noqa: BLE001 - a class of the user's, or no memory: share it rather than lose it
        return error
    if type(twin) is not type(error):
        return error
    if not isinstance(twin, BlobStoreError):
        twin.__dict__.update(_state_of(error))
        twin.__cause__, twin.__suppress_context__ = error.__cause__, error.__suppress_context__
    twin.__context__ = error.__context__
    return twin


def errno_name(errno: int) -> str:
    """Return ``'ENOSPC (No space left on device)'`` for ``28``."""
    # On Linux ENOTSUP is the same number, and the one that Python names; manuals name the other.
    name = "EOPNOTSUPP" if errno == _errno.EOPNOTSUPP else _errno.errorcode.get(errno, errno)
    return f"{name} ({os.strerror(errno)})"


def check_rc(rc: int, what: object) -> int:
    """Return ``rc`` if it is not negative, else raise it as a :class:`BlobStoreIOError`.

    The only place where a negative number becomes an exception.  ``what`` names the operation, file
    and offset; the error gets its ``offset``, if any.
    """
    if rc >= 0:
        return rc
    offset = getattr(what, "offset", None)
    text = with_remedy(f"{what}: {errno_name(-rc)}", -rc)
    raise BlobStoreIOError(-rc, text, offset=offset)
