"""Serve a store: ``python -m blob_service STORE [--port 8000]``.

SIGTERM and SIGINT stop it: no new connection, every request in progress is answered (or cut off when
its client takes no part for a minute), then the store is flushed and closed.
"""

from __future__ import annotations

import argparse
import socket

import uvicorn

from blob_service.app import Service
from blob_service.scrub import Scrub
from uringblob import AsyncBlobStore, AsyncFileBlobStore
from uringblob.metrics import PrometheusObserver


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="blob_service", description="Frames over HTTP")
    parser.add_argument("store", help="the store file; made if there is none")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0 takes any free one")
    parser.add_argument("--page-size", type=int, help="bytes a frame, for a new store")
    parser.add_argument("--requests-max", type=int, default=64, help="more at once are answered 503")
    parser.add_argument("--upload-timeout", type=float, default=30.0, metavar="SECONDS")
    parser.add_argument(
        "--shutdown-timeout", type=int, default=60, metavar="SECONDS", help="then who is slow is cut off"
    )
    parser.add_argument(
        "--scrub-rate",
        type=float,
        default=16.0,
        metavar="MIB",
        help="MiB a second that the weekly scrub reads",
    )
    parser.add_argument("--engine", default="auto")
    return parser.parse_args()


class Server(uvicorn.Server):
    """Prints on standard output where it listens, and when everything is closed."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the store, listen, then print."""
        await super().startup(sockets=sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            print(f"listening on http://{host}:{port}", flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer requests in progress, close the store, then print; uvicorn then ends by its signal."""
        await super().shutdown(sockets=sockets)
        print("closed", flush=True)


def main() -> None:
    """Serve until a signal stops it."""
    options = parse()

    async def open_store(observer: PrometheusObserver) -> AsyncBlobStore:
        return await AsyncFileBlobStore.open(
            options.store,
            page_size=options.page_size,
            engine=options.engine,
            buffers=options.requests_max,
            observer=observer,
        )

    service = Service(
        open_store,
        requests_max=options.requests_max,
        upload_timeout_s=options.upload_timeout,
        scrub=Scrub(rate=options.scrub_rate * 1024 * 1024),
    )
    # Uploads have a time limit of their own; this one is for clients that do not read their answer.
    # A request that is cut off was not acknowledged, and the store completes what it had begun.
    config = uvicorn.Config(
        service.app,
        host=options.host,
        port=options.port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=options.shutdown_timeout,
    )
    server = Server(config)
    server.run()
    if not server.started:
        raise SystemExit("the service could not start; the log says why")


if __name__ == "__main__":
    main()
