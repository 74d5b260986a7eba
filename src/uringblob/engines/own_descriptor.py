"""A duplicate of the store's descriptor, for one engine only.

If the store's descriptor were closed with a write queued, the next file opened in the process would get
its number, and the write.  ``dup`` gives a second number for the same open file description: same flags,
same flock, which is held until the last of them is closed (Linux 6.18), a forked child's copy included.
So the child closes its copy.
"""

from __future__ import annotations

import contextlib
import os

from uringblob import fork


class OwnDescriptor:
    """Open while it is referenced; ``fd`` is -1 once it is closed.

    Every thread that uses the number keeps a reference meanwhile, so that dropping a reference is safe
    at any time; :meth:`close` requires that no thread uses it.
    """

    __slots__ = ("__weakref__", "fd")

    def __init__(self, fd: int | None) -> None:
        """Duplicate ``fd``, which stays the caller's; ``None``: closed from the start.

        :raises OSError: no descriptor is left.
        """
        self.fd = -1
        if fd is not None:
            self.fd = os.dup(fd)
            fork.remember(self)

    def close(self) -> None:
        """Close it, without unlocking; a second call does nothing."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            # Some file systems report a lost write here.  Durable data was synced before, and the
            # store's own descriptor of the same file reports the error again.
            with contextlib.suppress(OSError):
                os.close(fd)

    abandon = close

    def __del__(self) -> None:
        self.close()


#: The descriptor of an engine that has released its own: every call on it ends with EBADF.
CLOSED = OwnDescriptor(None)
