"""Hear of a ring's completions through an eventfd instead of the ring's own descriptor."""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable

from uringblob.ring import Ring

#: The same number on every architecture that Linux added it to.
_SYS_IO_URING_REGISTER = 427
_IORING_REGISTER_EVENTFD = 4


def listen_through_eventfd(ring: Ring, loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
    """Switch ``ring`` over; the result undoes it.

    :raises OSError: the kernel refuses, or this Python (before 3.10) or system has no eventfd.
    """
    descriptor = ring._core.fd
    eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    library = ctypes.CDLL(None, use_errno=True)
    number = ctypes.c_int(eventfd)
    if library.syscall(_SYS_IO_URING_REGISTER, descriptor, _IORING_REGISTER_EVENTFD, ctypes.byref(number), 1):
        os.close(eventfd)
        raise OSError(ctypes.get_errno(), "io_uring_register of an eventfd")

    waiting = ring._in_flight.table

    def woken() -> None:
        os.eventfd_read(eventfd)
        before = len(waiting)
        ring._on_completion_event()
        # The ring hands out a few frames at a time and leaves the rest in the completion queue.  Its own
        # descriptor stays readable then; an eventfd does not, and a full run once waited for ever.
        if len(waiting) < before:
            os.eventfd_write(eventfd, 1)

    loop.remove_reader(descriptor)
    loop.add_reader(eventfd, woken)

    def undo() -> None:
        loop.remove_reader(eventfd)
        loop.add_reader(descriptor, ring._on_completion_event)
        os.close(eventfd)

    return undo
