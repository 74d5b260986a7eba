"""The lease of an open store: an object that keeps what it may read from being collected.

``docs/remote-format.md``, rules 16 to 18.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import Callable
from typing import Final

from uringblob.logs import logger
from uringblob.remote.bucket import BucketError
from uringblob.remote.format import LEASES, encode_lease
from uringblob.remote.requests import Requests

#: The share of its duration for which a lease is relied upon: clocks may differ by the rest.
TRUSTED: Final = 0.9
#: Where a lease cannot be put: the bucket may only be read, or is full.
_READS_ALL_THE_SAME: Final = frozenset({errno.EACCES, errno.EPERM, errno.EDQUOT, errno.ENOSPC})
#: It is renewed so often in its duration.
RENEWALS: Final = 3


class Lease:
    """Renewed in the background, from :meth:`take` to :meth:`end`.

    :param oldest: returns the number of the oldest state that is still needed.
    """

    def __init__(self, requests: Requests, session: bytes, ttl_s: float, oldest: Callable[[], int]) -> None:
        self.key = f"{LEASES}{session.hex()}"
        self._requests, self._ttl_s, self._oldest = requests, ttl_s, oldest
        self._until_s = float("-inf")
        self.refused = ""  #: why there is none
        self.broken = False  #: it lapsed once, so that what it should have kept may be gone
        self._task: asyncio.Task[None] | None = None

    @property
    def holds(self) -> bool:
        """Whether what it keeps is kept for certain."""
        return asyncio.get_running_loop().time() < self._until_s

    async def take(self) -> None:
        """Put the lease, on what is needed now: the caller looks whether that was in time."""
        sent_s = asyncio.get_running_loop().time()
        try:
            await self._requests.put(self.key, encode_lease(self._oldest(), self._ttl_s))
        except BucketError as error:
            if error.errno not in _READS_ALL_THE_SAME:
                raise
            self.refused = str(error)  # a reader that may only read, or of a full bucket, goes on without one
        else:
            self.refused = ""
            self._until_s = sent_s + TRUSTED * self._ttl_s

    async def renew(self) -> None:
        """Put the lease again; one that lapsed meanwhile stays lapsed, until it is taken anew."""
        until_s = self._until_s
        await self.take()
        if asyncio.get_running_loop().time() >= until_s:
            self._until_s, self.broken = until_s, True

    def keep(self) -> None:
        """Renew it from now on."""
        self._task = asyncio.get_running_loop().create_task(self._keep())

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._ttl_s / RENEWALS)
            try:
                await self.renew()
            except BucketError as error:
                logger.warning(
                    "%s: the lease was not renewed: %s",
                    self._requests.name,
                    error,
                    extra={"event": "lease_failed", "path": self._requests.name, "errno": error.errno},
                )

    async def end(self) -> None:
        """Stop renewing it, and delete it.

        :raises BucketError: it was not deleted, and ends by itself.
        """
        self.drop()
        if self._task is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._requests.delete([self.key])

    def drop(self) -> None:
        """Stop renewing it, without a request; in the loop's thread."""
        if self._task is not None:
            self._task.cancel()
