"""The one import of the C extension.

The path of an operation to the kernel and back:

1. ``uringblob.ring`` packs it, with a unique ``user_data``, into 40 bytes (``struct ub_op``).
2. Once per loop tick, ``ub_submit`` turns the packed operations into SQEs and enters the kernel once.
3. The kernel transfers the data and posts a completion; the ring's descriptor becomes readable.
4. ``ub_reap`` copies all posted completions into ``cqe_buffer``; Python looks each ``user_data`` up in
   its table, resolves the future, and sets ``consumed``.
5. The next ``ub_reap`` removes the consumed ones from the completion queue.

cffi releases the GIL around every call, so a ring belongs to one thread.  ``ffi`` and ``lib`` are
``None`` without the extension, and :data:`unavailable_reason` is why.  The environment variable
``URINGBLOB_NO_EXT=1`` hides an extension that is installed.
"""

from __future__ import annotations

import os
import sys

from uringblob._native.types import Ffi, Lib

ffi: Ffi | None = None
lib: Lib | None = None

#: Why ``lib`` is ``None``; else empty.
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
