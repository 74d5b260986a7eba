"""The event loop of a ring that has none."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any, cast

from uringblob.logs import logger


class _NoLoop:
    """The part of an event loop that a future needs; awaiting on it is an error."""

    def get_debug(self) -> bool:
        return False

    def call_soon(self, callback: Any, *args: Any, context: contextvars.Context) -> None:
        """Run a completion's callback at once, in the reaping thread; log what it raises."""
        try:
            context.run(callback, *args)
        except Exception:  # noqa: BLE001 - it must not end the reaping
            logger.exception(
                "the callback %r of a completion failed", callback, extra={"event": "callback_failed"}
            )

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Ignore: a completion yields a number and never an exception."""


NO_LOOP = cast("asyncio.AbstractEventLoop", _NoLoop())
