"""The service's routes: each holds one leased frame, and answers a change when it is durable."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import heapq
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from blob_service import bodies
from blob_service.admission import Admission
from blob_service.answers import HANDLERS, BodyResponse, check_conditions, etag_of, matches, status_of
from blob_service.scrub import Scrub
from uringblob import AlignedBlobBuf, AsyncBlobStore, BlobGuid, BlobNotFound, ConditionFailed
from uringblob.checksums import frame_checksum
from uringblob.metrics import PrometheusObserver, StoreCollector

OCTETS = "application/octet-stream"
LIST_LIMIT = 1000

#: Opens the store, on the server's loop, with the observer of its calls.
OpenStore = Callable[[PrometheusObserver], Awaitable[AsyncBlobStore]]


class Service:
    """One store behind HTTP.  ``app`` is the ASGI application."""

    def __init__(
        self,
        open_store: OpenStore,
        *,
        requests_max: int = 64,
        upload_timeout_s: float = 30.0,
        scrub: Scrub | None = None,
    ) -> None:
        self.store: AsyncBlobStore
        self.registry = CollectorRegistry()
        self._open_store = open_store
        self._upload_timeout_s = upload_timeout_s
        self._scrub = Scrub() if scrub is None else scrub
        self._answers = Counter(
            "blob_service_answers",
            "Answers by method and status",
            ["method", "status"],
            registry=self.registry,
        )
        one, counted = "/frames/{name}", self._counted
        routes = [
            # One route for all methods, so that a 405 allows all of them.
            Route(one, counted(self.frame), methods=["GET", "PUT", "DELETE"]),
            Route("/frames", counted(self.list), methods=["GET"]),
            Route("/healthz", self.health),
            Route("/metrics", self.metrics),
        ]
        inner = Starlette(routes=routes, exception_handlers=HANDLERS, lifespan=self._lifespan)
        self.app = Admission(inner, requests_max, lambda method: self._answers.labels(method, 503).inc())
        in_flight = Gauge(
            "blob_service_requests_in_flight", "Requests for frames in progress", registry=self.registry
        )
        in_flight.set_function(lambda: self.app.in_flight)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        # The server ends the lifespan when the last request is answered, so nothing delays the
        # store's close, which waits for its requests and flushes.
        async with await self._open_store(PrometheusObserver(self.registry)) as self.store:
            self.registry.register(collector := StoreCollector(self.store))
            async with self._scrub.running(self.store, collector):
                yield

    def _counted(
        self, handler: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        @functools.wraps(handler)
        async def counting(request: Request) -> Response:
            status = 500
            try:
                response = await handler(request)
                status = response.status_code
                return response
            except HTTPException as error:
                status = error.status_code
                raise
            except Exception as error:
                status = status_of(error)
                raise
            finally:
                self._answers.labels(request.method, status).inc()

        return counting

    # --- frames ------------------------------------------------------------------------------

    async def frame(self, request: Request) -> Response:
        """Answer a request for one frame."""
        changes = {"PUT": self.put, "DELETE": self.delete}
        return await changes.get(request.method, self.get)(request)

    async def put(self, request: Request) -> Response:
        """Store the body; it is durable when this is answered."""
        guid = guid_of(request)
        size_max = bodies.body_size_max(self.store.page_size)
        if int(request.headers.get("content-length", 0)) > size_max:
            raise HTTPException(413, f"a frame holds {size_max} bytes")
        # Refused before the body is read: a client that sends Expect: 100-continue does not send it.
        with self.store.alloc_blob_buf_zeroed() as frame:
            there = await self._checksum(guid)
            check_conditions(request, there)
            await self._receive(request, frame.view)
            await self._replace(request, guid, there, [(guid, frame)])
            etag = etag_of(frame_checksum(frame.view))
        return Response(status_code=201 if there is None else 204, headers={"ETag": etag})

    async def _replace(
        self,
        request: Request,
        guid: BlobGuid,
        there: int | None,
        writes: Sequence[tuple[BlobGuid, AlignedBlobBuf]],
    ) -> None:
        """Commit ``writes``, or the deletion, in place of the frame that was ``there``, and of no other.

        Nothing is reserved while the body comes: of two changes at a time the one that is whole first is made.
        """
        try:
            await self.store.commit(
                writes,
                () if writes else [guid],
                if_absent=[guid] if there is None else (),
                if_checksum={} if there is None else {guid: there},
            )
        except ConditionFailed as error:
            check_conditions(request, error.found)
            raise HTTPException(409, "another change of this frame came first: try again") from error

    async def _receive(self, request: Request, frame: memoryview) -> None:
        try:
            await asyncio.wait_for(bodies.receive(request.stream(), frame), self._upload_timeout_s)
        except asyncio.TimeoutError as error:
            raise HTTPException(408, f"no whole body in {self._upload_timeout_s} s") from error

    async def get(self, request: Request) -> Response:
        """Return the body, or for HEAD all but the body."""
        guid = guid_of(request)
        known = request.headers.get("if-none-match")
        etag = etag_of(await self.store.checksum(guid))
        if known is not None and matches(known, etag):
            return Response(status_code=304, headers={"ETag": etag})
        if request.method == "HEAD":
            size = await self._size(guid)
            return Response(media_type=OCTETS, headers={"ETag": etag, "Content-Length": str(size)})
        with self.store.alloc_blob_buf_uninit() as frame:
            await self.store.read_blob(guid, frame)
            # Of the bytes sent: the frame may have been replaced since the check above.
            etag = etag_of(frame_checksum(frame.view))
            body = bytes(frame.view[: bodies.size_in(frame.view, len(frame))])
        return BodyResponse(body, media_type=OCTETS, headers={"ETag": etag})

    async def _size(self, guid: BlobGuid) -> int:
        tail = bytearray(bodies.TAIL_SIZE)
        page_size = self.store.page_size
        await self.store.read_blob_range(guid, page_size - len(tail), tail)
        return bodies.size_in(memoryview(tail), page_size)

    async def delete(self, request: Request) -> Response:
        """Delete the frame; durable when this is answered."""
        guid = guid_of(request)
        there = await self._checksum(guid)
        if there is None:
            raise HTTPException(404, "no such frame")
        check_conditions(request, there)
        await self._replace(request, guid, there, [])
        return Response(status_code=204)

    async def _checksum(self, guid: BlobGuid) -> int | None:
        try:
            return await self.store.checksum(guid)
        except BlobNotFound:
            return None

    async def list(self, request: Request) -> Response:
        """Return a page of names in order; ``next`` is the ``after`` of the next page."""
        try:
            limit = min(int(request.query_params.get("limit", LIST_LIMIT)), LIST_LIMIT)
            if limit < 1:
                raise ValueError("limit is a number from 1 on")
            after = uuid.UUID(request.query_params.get("after", "0" * 32)).bytes
        except ValueError as error:
            raise HTTPException(400, str(error)) from error
        first = "after" not in request.query_params
        names = (name for name in await self.store.list_blobs() if first or name > after)
        page = [str(name) for name in heapq.nsmallest(limit, names)]
        return JSONResponse({"frames": page, "next": page[-1] if len(page) == limit else None})

    # --- monitoring --------------------------------------------------------------------------

    async def health(self, _request: Request) -> Response:
        """Answer 503 when the store refuses changes for good, so that the service is restarted."""
        stats = self.store.stats()
        healthy = not (stats.poisoned or self.store.closed)
        report = {
            "healthy": healthy,
            "engine": stats.engine,
            "engine_reason": stats.engine_reason,
            "poisoned": stats.poisoned,
            "blobs": stats.blobs,
            "requests_in_flight": self.app.in_flight,
            "scrub": self._scrub.summary(),
        }
        return JSONResponse(report, 200 if healthy else 503)

    async def metrics(self, _request: Request) -> Response:
        """Return all metrics."""
        return PlainTextResponse(generate_latest(self.registry), media_type="text/plain; version=0.0.4")


def guid_of(request: Request) -> BlobGuid:
    """Return the name in the path: 32 hexadecimal digits, with hyphens or without."""
    try:
        return BlobGuid(uuid.UUID(request.path_params["name"]).bytes)
    except ValueError as error:
        raise HTTPException(400, "a frame's name is a UUID") from error
