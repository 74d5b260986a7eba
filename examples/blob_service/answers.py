"""The store's errors and the client's conditions, in HTTP."""

from __future__ import annotations

import logging

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ExceptionHandler, Receive, Scope, Send

from blob_service.bodies import BodyTooLarge, NotABody
from uringblob import BlobCorrupt, BlobNotFound, BlobStoreError, BlobStoreIOError, StoreClosed, StorePoisoned
from uringblob.errors import NO_SPACE_ERRNOS

logger = logging.getLogger("blob_service")


def etag_of(checksum: int) -> str:
    """Return the ETag of a frame: a strong one, because the checksum is of all its bytes."""
    return f'"{checksum:016x}"'


def matches(header: str, etag: str, *, weakly: bool = True) -> bool:
    """Whether a header names ``etag``: If-None-Match ``weakly``, If-Match not (RFC 9110, 13.1)."""
    named = [entry.strip() for entry in header.split(",")]
    return "*" in named or etag in named or (weakly and f"W/{etag}" in named)


def check_conditions(request: Request, there: int | None) -> None:
    """Raise 412 unless a change may be applied to the frame with the checksum ``there`` (``None``: none)."""
    etag = None if there is None else etag_of(there)
    wanted = request.headers.get("if-match")
    if wanted is not None and (etag is None or not matches(wanted, etag, weakly=False)):
        raise HTTPException(412, "If-Match: the frame is another one by now")
    unwanted = request.headers.get("if-none-match")
    if unwanted is not None and etag is not None and matches(unwanted, etag):
        raise HTTPException(412, "If-None-Match: the frame is there already")


def status_of(error: Exception) -> int:
    """Return the status that names the side at fault, and whether a retry may help."""
    if isinstance(error, BlobNotFound):
        return 404
    if isinstance(error, BodyTooLarge):
        return 413
    if isinstance(error, BlobStoreIOError) and error.errno in NO_SPACE_ERRNOS:
        return 507
    if isinstance(error, (StorePoisoned, StoreClosed)):
        return 503  # until the store is opened again; /healthz reports it too
    return 500


async def answer_error(_request: Request, error: Exception) -> Response:
    """Turn an error of the store into an answer; the log has the details, the client the kind."""
    status = status_of(error)
    if status >= 500:
        logger.error("%s: %s", type(error).__name__, error, extra={"status": status})
    return PlainTextResponse(f"{type(error).__name__}\n", status)


async def answer_disconnected(_request: Request, _error: Exception) -> Response:
    """Answer a client that disconnected within its body: nothing was changed."""
    return PlainTextResponse("the body was not complete\n", 400)


#: For Starlette; subclasses are found, too.
HANDLERS: dict[type[Exception], ExceptionHandler] = {
    BlobStoreError: answer_error,
    BlobCorrupt: answer_error,
    BodyTooLarge: answer_error,
    NotABody: answer_error,
    ClientDisconnect: answer_disconnected,
}


class BodyResponse(Response):
    """An answer that counts as in progress until the client has received it.

    A server hands a body to the socket's buffer and calls that sent.  The empty piece behind it
    is only sent when that buffer has drained, so a slow reader holds its place in the admission,
    and memory stays bounded.
    """

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Send head, body, and the pending piece."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
