"""What stands in for an event loop where there is none."""

from __future__ import annotations

import asyncio
from typing import Any, cast


class _NoLoop:
    """As much of an event loop as a future asks for; nobody can run or await on it."""

    def get_debug(self) -> bool:
        return False

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> None:
        raise RuntimeError("this ring has no event loop: use Ring.wait(completion) or completion.done()")

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Ignore: a completion yields a number and never an exception."""


NO_LOOP = cast("asyncio.AbstractEventLoop", _NoLoop())
