"""The options of ``open``: one object, from which every ``open`` takes its signature and documentation."""

from __future__ import annotations

import dataclasses
import errno
import functools
import inspect
import numbers
import os
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar, Union

from uringblob.api.observer import StoreObserver
from uringblob.errors import encodable
from uringblob.units import ENGINES, MODE, check_label, check_max_bytes, check_page_size

StorePath = Union[str, bytes, "os.PathLike[str]", "os.PathLike[bytes]"]

#: Frames in a pool at most: a larger number is taken for a mistake in units.
BUFFERS_MAX = 1 << 20
QUEUE_DEPTH_MAX = 4096

P = ParamSpec("P")
Store = TypeVar("Store")
Opened = TypeVar("Opened")
Options = TypeVar("Options")


@dataclasses.dataclass(frozen=True)
class OpenOptions:
    """What ``open`` takes; this documentation becomes a part of its own.

    :param path: the store file.
    :param page_size: the frame size in bytes for a new store (default 524288), a multiple
        of 4096 from 4096 to 64 MiB; for an existing one ``PageSizeMismatch`` if it differs.
    :param create: make the store if there is none; false: ``FileNotFoundError``.
    :param read_only: change no byte on disk.  Several such openers share a store; none beside
        a writer.  After an unclean end it shows what a writer would find; only where it reads
        through a cache the last, unconfirmed group is left out (``stats().notes``).
    :param max_bytes: a limit for the length of the file; beyond it a change is a ``BlobStoreIOError``
        (ENOSPC), as on a full disk: see ``set_max_bytes``.
    :param engine: ``"io_uring"``, ``"pread"``, or ``"auto"``: the best that works here.  The
        environment variable ``URINGBLOB_ENGINE`` sets what ``"auto"`` means.
    :param direct: O_DIRECT: ``True`` requires it, ``False`` forbids it, ``None`` takes it where the
        file system has it.
    :param buffers: frames in the registered pool (default 64, or as many as 32 MiB hold).
    :param queue_depth: submission queue entries; more requests wait their turn.
    :param lock_timeout: seconds to wait for another opener, then ``StoreLocked``.
    :param verify: check a frame's checksum whenever it is read.
    :param mode: permission bits of a newly made file, less the process's umask.
    :param label: a text of your own in a newly made file, up to 64 bytes of UTF-8; ``stats()`` shows it.
    :param observer: is called after every call; see :class:`uringblob.StoreObserver`.
    :raises StoreCorrupt: the file is empty, not a store, or damaged; it is left as it is.
    :raises StoreLocked: another opener held the store all the time.
    :raises EngineUnavailable: the requested engine or direct I/O is not available here.
    :raises OSError: what ``os.open`` raises is raised as it is.
    :raises BlobStoreIOError: the system refused something else, such as a sync store's thread.
    :raises ValueError: an option is out of range.
    :raises TypeError: an option is unknown, or of a wrong type.
    """

    path: dataclasses.InitVar[StorePath]
    _: dataclasses.KW_ONLY
    page_size: int | None = None
    create: bool = True
    read_only: bool = False
    max_bytes: int | None = None
    engine: str = "auto"
    direct: bool | None = None
    buffers: int | None = None
    queue_depth: int = 256
    lock_timeout: float = 5.0
    verify: bool = True
    mode: int = MODE
    label: str = ""
    observer: StoreObserver | None = None
    #: The store file, symbolic links resolved.
    file: str = dataclasses.field(init=False)

    def __post_init__(self, path: StorePath) -> None:
        name = os.fsdecode(path)
        if not name:  # which realpath takes for the current directory
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        if name.endswith(os.sep):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
        # A symbolic link is followed once, here: creation must not replace the link itself.
        object.__setattr__(self, "file", os.path.realpath(name))
        object.__setattr__(self, "engine", _engine_default(self.engine))
        if self.page_size is not None:
            check_page_size(self.page_size)
        object.__setattr__(self, "max_bytes", check_max_bytes(self.max_bytes))
        self._check_types()
        if self.buffers is not None and not 0 <= self.buffers <= BUFFERS_MAX:
            raise ValueError(f"buffers must be from 0 to {BUFFERS_MAX}, not {self.buffers}")
        if not 0 <= self.mode <= 0o7777:
            raise ValueError(f"mode must be permission bits from 0 to 0o7777, not {self.mode:#o}")
        check_label(self.label)
        if not 1 <= self.queue_depth <= QUEUE_DEPTH_MAX:
            raise ValueError(f"queue_depth must be from 1 to {QUEUE_DEPTH_MAX}, not {self.queue_depth}")
        if not self.lock_timeout >= 0:
            raise ValueError(f"lock_timeout must be 0 or more seconds, not {self.lock_timeout}")
        if self.engine not in ENGINES:
            raise ValueError(f"engine must be 'auto', 'io_uring' or 'pread', not {self.engine!r}")

    def _check_types(self) -> None:
        # A fraction is refused here, and not half-way.
        for name in ("buffers", "queue_depth", "mode"):
            value: object = getattr(self, name)
            if not hasattr(value, "__index__") and not (name == "buffers" and value is None):
                raise TypeError(f"{name} must be an int, not {type(value).__name__}")
        seconds: object = self.lock_timeout
        if not isinstance(seconds, numbers.Real):
            raise TypeError(
                f"lock_timeout must be a number of seconds, not {type(seconds).__name__}: "
                "0 does not wait, float('inf') waits for ever"
            )
        direct: object = self.direct
        if not (direct is None or isinstance(direct, bool)):
            raise TypeError(f"direct must be True, False or None, not {direct!r}")


def _engine_default(engine: str) -> str:
    """Return ``engine``, or what ``URINGBLOB_ENGINE`` says where that is ``"auto"``."""
    if engine != "auto":
        return engine
    chosen = os.environ.get("URINGBLOB_ENGINE") or engine
    if chosen not in ENGINES:
        raise ValueError(
            f"the environment variable URINGBLOB_ENGINE is {encodable(chosen)!r}, which is no engine: "
            f"set it to one of {', '.join(ENGINES)}, or unset it"
        )
    return chosen


def accepting(
    make_options: Callable[P, Options],
) -> Callable[[Callable[[type[Store], Options], Opened]], Callable[Concatenate[type[Store], P], Opened]]:
    """Make ``open(cls, options)`` the method ``open(cls, path, *, page_size=None, ...)``."""

    def decorate(
        opener: Callable[[type[Store], Options], Opened],
    ) -> Callable[Concatenate[type[Store], P], Opened]:
        @functools.wraps(opener)
        def open(cls: type[Store], /, *args: P.args, **kwargs: P.kwargs) -> Opened:  # noqa: A001 - its name
            signature.bind(cls, *args, **kwargs)  # its TypeError names no class of ours
            return opener(cls, make_options(*args, **kwargs))

        cls, _ = inspect.signature(opener).parameters.values()
        path, *options = inspect.signature(make_options).parameters.values()
        annotation = str(path.annotation).removeprefix("dataclasses.InitVar[").removesuffix("]")
        signature = inspect.signature(opener).replace(
            parameters=[cls, path.replace(annotation=annotation), *options]
        )
        open.__signature__ = signature  # type: ignore[attr-defined]
        _, _, options_documentation = inspect.cleandoc(make_options.__doc__ or "").partition("\n\n")
        open.__doc__ = f"{inspect.cleandoc(opener.__doc__ or '')}\n\n{options_documentation}"
        return open

    return decorate


open_options = accepting(OpenOptions)
