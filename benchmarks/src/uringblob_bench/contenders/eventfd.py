"""An event loop that a ring wakes through an eventfd instead of through the ring's own descriptor."""

from __future__ import annotations

import ctypes
import os
import select
from collections.abc import Callable
from typing import Any

#: The same number on every architecture that Linux added it to.
_SYS_IO_URING_REGISTER = 427
_IORING_REGISTER_EVENTFD = 4


class EventfdWakeup:
    """Mixed into an event loop's class: a reader of a ring's descriptor becomes one of an eventfd.

    :raises OSError: by ``add_reader``: the kernel refuses.
    """

    def __init__(self) -> None:
        super().__init__()
        self._eventfds: dict[int, int] = {}

    def add_reader(self, fd: int, callback: Callable[..., object], *args: Any) -> None:
        """Add a reader."""
        loop: Any = super()
        if "io_uring" not in os.readlink(f"/proc/self/fd/{fd}"):
            loop.add_reader(fd, callback, *args)
            return
        eventfd = eventfd_of(fd)
        ring = select.poll()
        ring.register(fd, select.POLLIN)

        def wake() -> None:
            os.eventfd_read(eventfd)
            callback(*args)
            # The reader takes a few completions at a time.  A ring's descriptor stays readable while some
            # are left; an eventfd does not, and a full run once waited for ever.
            if ring.poll(0):
                os.eventfd_write(eventfd, 1)

        self._eventfds[fd] = eventfd
        loop.add_reader(eventfd, wake)

    def remove_reader(self, fd: int) -> bool:
        """Remove a reader; the eventfd is closed."""
        loop: Any = super()
        eventfd = self._eventfds.pop(fd, None)
        removed = bool(loop.remove_reader(fd if eventfd is None else eventfd))
        if eventfd is not None:
            os.close(eventfd)
        return removed


def eventfd_of(ring: int) -> int:
    """Return an eventfd that the kernel signals with each completion of a ring.

    :raises OSError: the kernel refuses.
    """
    eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    number = ctypes.c_int(eventfd)
    library = ctypes.CDLL(None, use_errno=True)
    if library.syscall(_SYS_IO_URING_REGISTER, ring, _IORING_REGISTER_EVENTFD, ctypes.byref(number), 1):
        os.close(eventfd)
        raise OSError(ctypes.get_errno(), "io_uring_register of an eventfd")
    return eventfd
