"""How many frames the kernel will pin.

Registered memory counts against RLIMIT_MEMLOCK, which is one account per user: with the usual 8 MiB, 12
frames of 512 KiB register and 13 fail with ENOMEM, because whole huge pages count and the ring has some
itself (15 in small pages); fewer if another process of the user has some (checked on Linux 6.18).  Root
is exempt.  The remaining allowance cannot be queried, so a binary search finds it.
"""

from __future__ import annotations

import errno
import resource

from uringblob.buffers.slab import Slab
from uringblob.engines.unavailable import RingUnavailable
from uringblob.ring import Ring

#: Errnos that mean the limit; any other errno is a prohibition.
_LIMIT_ERRNOS = frozenset({errno.ENOMEM, errno.EAGAIN})


def register_frames(ring: Ring, slab: Slab) -> tuple[int, str]:
    """Register as many frames of ``slab``, from the first on, as the kernel takes.

    Returns their number (may be 0), and why not all (empty if all).
    """
    refusal = _attempt(ring, slab, slab.count)
    if refusal is None:
        return slab.count, ""
    fits, too_many = 0, slab.count
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if _attempt(ring, slab, middle) is None:
            fits = middle
            ring.unregister_buffers()
        else:
            too_many = middle
    # Another process of this user may have taken some since.
    while fits and _attempt(ring, slab, fits) is not None:
        fits -= 1
    slab.discard(fits)  # the attempts have touched all of it
    return fits, _reason(fits, slab, refusal)


def _attempt(ring: Ring, slab: Slab, count: int) -> OSError | None:
    try:
        ring.register_slab(slab, count)
    except OSError as error:
        return error
    return None


def _reason(count: int, slab: Slab, refusal: OSError) -> str:
    refused = RingUnavailable("register buffers", refusal.errno or 0)
    return (
        f"{count} of {slab.count} frames of {slab.frame_size} bytes are registered: {refused}: "
        f"{_limit() if refused.errno in _LIMIT_ERRNOS else refused.remedy}"
    )


def _limit() -> str:
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    allowed = (
        "unlimited" if limit == resource.RLIM_INFINITY else f"{limit} bytes for all of a user's processes"
    )
    return (
        f"RLIMIT_MEMLOCK is {allowed}; to raise it: "
        "'ulimit -l unlimited', LimitMEMLOCK=infinity in a systemd unit, --ulimit memlock=-1 for a container"
    )
