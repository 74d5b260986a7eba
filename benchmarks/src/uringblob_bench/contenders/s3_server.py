"""A server that speaks enough of S3 to keep a store, its objects in memory: what costs is the client.

``python -m uringblob_bench.contenders.s3_server`` prints its port and serves until it is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import re
import subprocess
import sys
from collections.abc import Generator
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

_DATE: Final = "Wed, 21 Oct 2015 07:28:00 GMT"
_LIST_ENTRY: Final = (
    "<Contents><Key>{}</Key><LastModified>2015-10-21T07:28:00.000Z</LastModified><ETag>{}</ETag><Size>{}</Size>"
    "</Contents>"
)
_HEAD_END: Final = b"\r\n\r\n"


class _Objects:
    """Bodies and ETags by path."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[bytes, str]] = {}
        self._etags = itertools.count()

    def answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> bytes:
        """Return the whole answer to one request."""
        parts = urlsplit(target)
        path, query = unquote(parts.path), parse_qs(parts.query)
        if method == "PUT":
            return self._put(path, headers, body)
        if method == "POST":
            keys = re.findall(r"<Key>(.*?)</Key>", body.decode())
            for key in keys:
                self._found.pop(f"{path.rstrip('/')}/{key}", None)
            deleted = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys)
            return _reply("200 OK", f"<DeleteResult>{deleted}</DeleteResult>".encode())
        if method == "DELETE":
            self._found.pop(path, None)
            return _reply("204 No Content")
        if "list-type" in query:
            return self._list(path.strip("/"), query)
        if path not in self._found:
            return _reply("404 Not Found", b"<Error><Code>NoSuchKey</Code></Error>")
        there, etag = self._found[path]
        if "range" in headers:
            return _part(there, headers["range"], etag)
        return _reply("200 OK", there, etag=etag, is_head=method == "HEAD")

    def _put(self, path: str, headers: dict[str, str], body: bytes) -> bytes:
        there = self._found.get(path)
        wanted = headers.get("if-match")
        if (there is not None and "if-none-match" in headers) or (
            wanted is not None and (there is None or there[1] != wanted)
        ):
            return _reply("412 Precondition Failed", b"<Error><Code>PreconditionFailed</Code></Error>")
        etag = f'"{hashlib.md5(b"%d" % next(self._etags), usedforsecurity=False).hexdigest()}"'
        self._found[path] = body, etag
        return _reply("200 OK", etag=etag)

    def _list(self, bucket: str, query: dict[str, list[str]]) -> bytes:
        prefix, after = query.get("prefix", [""])[0], query.get("start-after", [""])[0]
        keys = ((path.removeprefix(f"/{bucket}/"), found) for path, found in sorted(self._found.items()))
        entries = [
            _LIST_ENTRY.format(key, found[1].replace('"', "&quot;"), len(found[0]))
            for key, found in keys
            if key.startswith(prefix) and key > after
        ]
        text = f"<ListBucketResult><IsTruncated>false</IsTruncated>{''.join(entries)}</ListBucketResult>"
        return _reply("200 OK", text.encode())


def _part(there: bytes, wanted: str, etag: str) -> bytes:
    """Answer with ``bytes=FIRST-LAST``, cut off at the end of what is there."""
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    body = there[int(first) : int(last) + 1]
    found = f"bytes {first}-{int(first) + len(body) - 1}/{len(there)}"
    return _reply("206 Partial Content", body, etag=etag, part=found)


def _reply(status: str, body: bytes = b"", etag: str = "", *, is_head: bool = False, part: str = "") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", f"Last-Modified: {_DATE}"]
    if part:
        lines.append(f"Content-Range: {part}")
    if etag:
        lines.append(f"ETag: {etag}")
    head = "\r\n".join(lines).encode() + _HEAD_END
    return head if is_head else head + body


class _Connection(asyncio.Protocol):
    """Requests one after the other."""

    def __init__(self, objects: _Objects) -> None:
        self._objects = objects
        self._buffer = bytearray()
        self._needed = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= self._needed and (end := self._buffer.find(_HEAD_END)) >= 0:
            first, *lines = self._buffer[:end].decode().split("\r\n")
            headers = {
                name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
            }
            begin = end + len(_HEAD_END)
            self._needed = begin + int(headers.get("content-length", 0))
            if len(self._buffer) < self._needed:
                return
            body = bytes(memoryview(self._buffer)[begin : self._needed])
            del self._buffer[: self._needed]
            self._needed = 0
            method, target, _ = first.split(" ")
            self._transport.write(self._objects.answer(method, target, headers, body))


async def _serve() -> None:
    objects = _Objects()
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(objects), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 - for the process that started it
    await server.serve_forever()


@contextlib.contextmanager
def running() -> Generator[str]:
    """Run a server in a process of its own; yields its endpoint."""
    with subprocess.Popen([sys.executable, "-m", __name__], stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            yield f"http://127.0.0.1:{child.stdout.readline().strip()}"
        finally:
            child.kill()


if __name__ == "__main__":
    asyncio.run(_serve())
