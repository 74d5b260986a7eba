"""The choice of an engine, by trying.

``"auto"`` takes io_uring if every step of starting it works, first real requests included; any refusal
falls back to pread, and stage and errno are in ``engine.reason`` and in the log.  An engine requested by
name is that engine, or an error with the remedy.
"""

from __future__ import annotations

import errno
import logging
import sys

from uringblob import _native
from uringblob.buffers.leases import BufferPool
from uringblob.buffers.slab import Slab
from uringblob.engines.base import Engine
from uringblob.engines.direct import DirectIO, DirectRefused, disable_direct, enable_direct, require_direct
from uringblob.engines.pread.engine import PreadEngine
from uringblob.engines.request import EngineRequest
from uringblob.engines.unavailable import RingUnavailable
from uringblob.errors import EngineUnavailable
from uringblob.limits import memory_limits
from uringblob.logs import logger


def open_engine(request: EngineRequest) -> Engine:
    """Return the engine that ``request`` names; for ``"auto"``, the best that works here.

    Runs on the loop's thread and blocks for a few system calls.  When it raises, the descriptor
    is still the caller's to close.

    :raises EngineUnavailable: the engine requested by name cannot run, or ``direct=True`` and
        this file has no direct I/O.
    """
    direct = _decide_direct(request)
    if request.engine == "pread":
        return _open_pread(request, direct, "asked for by name")
    try:
        return _open_uring(request, direct)
    except RingUnavailable as refusal:
        if request.engine == "io_uring":
            raise EngineUnavailable(
                f"engine 'io_uring' cannot run for {request.path}: {refusal.message}; "
                "or use engine='auto', which then takes pread",
                refusal.errno or None,
                refusal.stage,
            ) from refusal
        _log_fallback(request.path, refusal)
        return _open_pread(request, direct, str(refusal))


def _log_fallback(path: str, refusal: RingUnavailable) -> None:
    logger.log(
        # Without io_uring in the system, its absence is expected.
        logging.WARNING if sys.platform.startswith("linux") else logging.INFO,
        "%s: using the pread engine, because %s",
        path,
        refusal.message,
        extra={
            "event": "engine_fallback",
            "path": path,
            "engine": "pread",
            "stage": refusal.stage,
            "errno": refusal.errno,
        },
    )


def _decide_direct(request: EngineRequest) -> DirectIO:
    if request.direct is False:
        disable_direct(request.fd)
        return DirectIO(on=False, memory_align=1, reason="switched off by direct=False")
    if request.direct is None:
        return enable_direct(request.fd, request.path, read_only=request.read_only)
    try:
        return require_direct(request.fd, request.path, read_only=request.read_only)
    except DirectRefused as refused:
        raise EngineUnavailable(
            f"direct=True, but {request.path} cannot be moved without the page cache: {refused}: "
            "use direct=None, or a file system with O_DIRECT",
            refused.errno or None,
            "direct",
        ) from refused


def _open_uring(request: EngineRequest, direct: DirectIO) -> Engine:
    """Start io_uring, or raise :class:`RingUnavailable`."""
    if _native.lib is None:
        raise RingUnavailable("import", 0, _native.unavailable_reason)
    try:
        from uringblob.engines.uring.engine import UringEngine

        return UringEngine(request, direct.on, direct.memory_align)
    except ImportError as error:
        raise RingUnavailable("import", 0, str(error)) from error
    except NotImplementedError as error:
        raise RingUnavailable("event loop", 0, str(error) or "it has no add_reader") from error
    except MemoryError as error:
        raise RingUnavailable("setup", errno.ENOMEM, str(error), memory_limits()) from error
    except OSError as error:
        raise RingUnavailable("setup", error.errno or 0, error.strerror or str(error)) from error


def _open_pread(request: EngineRequest, direct: DirectIO, reason: str) -> PreadEngine:
    return PreadEngine(
        request.loop,
        request.fd,
        pool=_unregistered_pool(request),
        direct_io=direct.on,
        memory_align=direct.memory_align,
        reason=reason,
    )


def _unregistered_pool(request: EngineRequest) -> BufferPool:
    """Return a pool in huge pages: pread, too, has fewer pages to pin."""
    asked = request.buffers_asked
    reason = "the pread engine registers no buffers"
    slab: Slab | None = None
    if asked > 0:
        try:
            slab = Slab(request.page_size, asked)
        except (OSError, MemoryError) as error:
            reason = f"no memory for {asked} frames ({error})"
    return BufferPool(request.page_size, slab, asked=asked, reason=reason)
