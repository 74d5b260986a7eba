"""A descriptor that an engine shares with nobody.

A number in a queue outlives the descriptor: when its owner closes it, the next file that is opened
anywhere in the process gets the number, and the write.  So an engine makes a descriptor of its own.
``dup`` gives a second number for the same open file description: same flags, same flock, which is held
until the last of them is closed.  (Linux 6.18; a flock is the description's, not the number's.)
"""

from __future__ import annotations

import contextlib
import os


class OwnDescriptor:
    """Open as long as somebody refers to it; ``fd`` is -1 once it is closed.

    Every thread that uses the number keeps a reference meanwhile, so that dropping one's own is safe at
    any time; :meth:`close` is for an owner who knows that nobody uses it.
    """

    __slots__ = ("__weakref__", "fd")

    def __init__(self, fd: int) -> None:
        """Duplicate ``fd``, which stays the caller's.

        :raises OSError: no descriptor is left.
        """
        self.fd = -1
        self.fd = os.dup(fd)

    def __repr__(self) -> str:
        return f"<OwnDescriptor {self.fd}>"

    def close(self) -> None:
        """Close it, without unlocking; a second call does nothing."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            # Some file systems report a lost write here.  What was promised was synced before, and the
            # store's own descriptor of the same file has the last word.
            with contextlib.suppress(OSError):
                os.close(fd)

    def __del__(self) -> None:
        self.close()


class _Closed(OwnDescriptor):
    """What an engine has when it has let go of its own: every call on it ends with EBADF."""

    __slots__ = ()

    def __init__(self) -> None:
        self.fd = -1


CLOSED = _Closed()
