"""What stands in for an event loop where there is none."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any, cast

from uringblob.logs import logger


class _NoLoop:
    """As much of an event loop as a future asks for; nobody can await on it."""

    def get_debug(self) -> bool:
        return False

    def call_soon(self, callback: Any, *args: Any, context: contextvars.Context) -> None:
        """Run a completion's callback at once, in whoever reaps; it must not disturb the reaping."""
        try:
            context.run(callback, *args)
        except Exception:  # noqa: BLE001 - it is logged, and must not disturb the reaping
            logger.exception(
                "the callback %r of a completion failed", callback, extra={"event": "callback_failed"}
            )

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Ignore: a completion yields a number and never an exception."""


NO_LOOP = cast("asyncio.AbstractEventLoop", _NoLoop())
