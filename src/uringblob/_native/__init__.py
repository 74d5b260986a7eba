"""The one door to C.

One operation's way, from Python to the kernel and back:

1. ``uringblob.ring`` packs it, with a ``user_data`` of its own, into 40 bytes (``struct ub_op``).
2. Once per loop tick the packed operations of that tick are joined and handed to ``ub_submit``,
   which makes SQEs of them and enters the kernel once.
3. The kernel moves the bytes and posts a completion; the ring's descriptor becomes readable.
4. ``ub_reap`` copies all completions there are into the inbox; Python looks each ``user_data``
   up in its table, resolves the future, and says "settled".
5. The next ``ub_reap`` takes the settled ones off the completion queue.

cffi releases the GIL around every call, so one thread owns a ring.  ``ffi`` and ``lib`` are
``None`` where the extension is missing; :data:`unavailable_reason` then says why.  The
environment variable ``URINGBLOB_NO_EXT=1`` hides an extension that is there.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uringblob._native.types import Ffi, Lib

ffi: Ffi | None = None
lib: Lib | None = None

#: Why ``lib`` is ``None``; empty where it is not.
unavailable_reason: str = ""

if not sys.platform.startswith("linux"):
    unavailable_reason = f"io_uring exists on Linux only, not on {sys.platform}"
elif os.environ.get("URINGBLOB_NO_EXT", "0") not in {"", "0"}:
    unavailable_reason = "the extension is hidden by the environment variable URINGBLOB_NO_EXT"
else:
    try:
        from uringblob._native._uringblob import ffi, lib
    except ImportError as _error:
        unavailable_reason = (
            f"the extension is not built ({_error}): install a C compiler and liburing's headers "
            "(Debian: gcc, liburing-dev), then reinstall with URINGBLOB_EXT=require to see what fails"
        )


def require_lib() -> tuple[Ffi, Lib]:
    """Return ``(ffi, lib)``.

    :raises OSError: there is no extension; the message says why.
    """
    if ffi is None or lib is None:
        raise OSError(unavailable_reason)
    return ffi, lib
