"""Backpressure: a request is started or refused, never queued.

A number of requests may be in progress at once, from their first byte to the last of their answer: each
holds a frame, so this bounds the memory.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

RETRY_AFTER_S = 1


class Admission:
    """ASGI middleware: at most ``requests_max`` requests for frames are in progress.

    ``on_refusal`` is called with the method of each refused request.
    """

    def __init__(self, app: ASGIApp, requests_max: int, on_refusal: Callable[[str], None]) -> None:
        self.in_flight = 0
        self._app = app
        self._on_refusal = on_refusal
        self._requests_max = requests_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 503."""
        # Health and metrics are needed most when everything else is refused.
        if scope["type"] != "http" or not scope["path"].startswith("/frames"):
            await self._app(scope, receive, send)
            return
        if self.in_flight >= self._requests_max:
            self._on_refusal(scope["method"])
            text = f"{self.in_flight} requests are in progress: try again in {RETRY_AFTER_S} s\n"
            refusal = PlainTextResponse(text, 503, headers={"Retry-After": str(RETRY_AFTER_S)})
            await refusal(scope, receive, send)
            return
        self.in_flight += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self.in_flight -= 1
