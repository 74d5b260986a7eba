"""Servers of the tests: moto in a process of its own, a proxy that cuts, and one that answers by a script."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import urllib.request

#: obstore reads them; moto takes any, Ceph those that tools/ceph.sh made.
KEY = {"AWS_ACCESS_KEY_ID": "testkey", "AWS_SECRET_ACCESS_KEY": "testsecret123"}
START_SECONDS = 60
#: It ends with the test process, also where that is killed (PR_SET_PDEATHSIG, SIGKILL).  It is given a socket
#: that listens: a port that was free a moment ago may be another process's by the time that moto is imported.
MOTO = """\
import ctypes, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9)
from moto import server
from werkzeug.serving import make_server
app = server.DomainDispatcherApplication(server.create_backend_app)
port, fd = map(int, sys.argv[1:])
make_server(
    "127.0.0.1", port, app, threaded=True, request_handler=server.MotoRequestHandler, fd=fd
).serve_forever()
"""


class Moto:
    """A server that speaks S3, its objects in its memory."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
            self.port = listening.getsockname()[1]
            self.endpoint = f"http://127.0.0.1:{self.port}"
            words = ["-c", MOTO, str(self.port), str(listening.fileno())]
            environ = {**os.environ, "COVERAGE_PROCESS_START": "", "MOTO_PORT": str(self.port)}
            self._child = subprocess.Popen(
                [sys.executable, "-W", "ignore", *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[listening.fileno()],
                env=environ,
            )
        self.make_bucket("bucket")  # it waits until moto serves, or has ended

    def make_bucket(self, name: str) -> None:
        request = urllib.request.Request(f"{self.endpoint}/{name}", method="PUT")
        with urllib.request.urlopen(request, timeout=START_SECONDS):
            pass

    def pause(self) -> None:
        self._child.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._child.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self._child.kill()
        self._child.wait()


class Proxy:
    """Forwards connections of this loop to a port, and breaks those that are planned for it."""

    def __init__(self, port: int) -> None:
        self._upstream = port
        self._writers: set[asyncio.StreamWriter] = set()
        #: Number of a request, from 0 on: "cut" (the server does not get it) or "lose" (its answer is lost).
        self.plan: dict[int, str] = {}
        self.requests = 0

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        while self._writers:
            for writer in self._writers:
                writer.close()
            await asyncio.sleep(0)

    async def _serve(self, reader, writer) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        except OSError:
            writer.close()
            return
        link = _Link(self, reader, writer, up_reader, up_writer)
        self._writers |= link.writers
        try:
            await asyncio.gather(link.requests(), link.answers())
        finally:
            self._writers -= link.writers


class _Link:
    """One connection; a request begins with the first bytes after an answer."""

    def __init__(self, proxy: Proxy, reader, writer, up_reader, up_writer) -> None:
        self._proxy = proxy
        self._reader, self._writer, self._up_reader, self._up_writer = reader, writer, up_reader, up_writer
        self.writers = {writer, up_writer}
        self._answered, self._action = True, None

    async def requests(self) -> None:
        with contextlib.suppress(OSError):
            while chunk := await self._reader.read(1 << 16):
                if self._answered:
                    self._action = self._proxy.plan.get(self._proxy.requests)
                    self._proxy.requests += 1
                    self._answered = False
                if self._action == "cut":
                    break
                self._up_writer.write(chunk)
                await self._up_writer.drain()
        self._end()

    async def answers(self) -> None:
        with contextlib.suppress(OSError):
            while chunk := await self._up_reader.read(1 << 16):
                self._answered = True
                if self._action == "lose":
                    break
                self._writer.write(chunk)
                await self._writer.drain()
        self._end()

    def _end(self) -> None:
        for writer in self.writers:
            writer.close()


class Scripted:
    """Answers each request with the next of a list of answers, the last one again and again; keeps the requests."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = list(answers)
        self.requests: list[str] = []

    async def __aenter__(self) -> Scripted:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader, writer) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = next((line for line in head.splitlines() if line.startswith("content-length:")), ":0")
            await reader.readexactly(int(length.partition(":")[2]))
            self.requests.append(head)
            writer.write(self._answers.pop(0) if len(self._answers) > 1 else self._answers[0])
            await writer.drain()
        writer.close()


def answer(status: str, body: str = "", **headers: str) -> bytes:
    """Return an answer, after which the server ends the connection."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()
