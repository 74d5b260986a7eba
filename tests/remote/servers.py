"""Servers of the tests: moto in a process of its own, a proxy that cuts, and one that answers by a script."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

#: obstore reads them; moto takes any, Ceph those that tools/ceph.sh made.
KEY = {"AWS_ACCESS_KEY_ID": "testkey", "AWS_SECRET_ACCESS_KEY": "testsecret123"}
START_SECONDS = 60


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Moto:
    """A server that speaks S3, its objects in its memory."""

    def __init__(self, port: int | None = None) -> None:
        self.port = port or free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        words = ["-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        environ = {**os.environ, "COVERAGE_PROCESS_START": ""}
        self._child = subprocess.Popen(
            [sys.executable, "-W", "ignore", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environ,
        )
        self._wait()
        self.make_bucket("bucket")

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert self._child.poll() is None, f"moto ended with {self._child.returncode}"
            assert time.monotonic() < deadline, "moto does not listen"
            time.sleep(0.02)

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
    """Forwards connections of this loop to a port, and breaks them as it is told."""

    def __init__(self, port: int) -> None:
        self._upstream = port
        self._writers: set[asyncio.StreamWriter] = set()
        #: Requests that are to be cut off before they are forwarded; answers that are to be lost.
        self.cut_requests = 0
        self.lose_answers = 0
        #: Chunks that went to the server.
        self.forwarded = 0

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in list(self._writers):
            writer.close()
        while self._writers:
            await asyncio.sleep(0)

    async def _serve(self, reader, writer) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        except OSError:
            writer.close()
            return
        both = {writer, up_writer}
        self._writers |= both
        try:
            await asyncio.gather(
                self._copy(reader, up_writer, both, "cut_requests"),
                self._copy(up_reader, writer, both, "lose_answers"),
            )
        finally:
            for each in both:
                with contextlib.suppress(OSError):
                    await each.wait_closed()
            self._writers -= both

    async def _copy(self, reader, writer, both, broken_by) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(1 << 16):
                left = getattr(self, broken_by)
                if left:
                    setattr(self, broken_by, left - 1)
                    break
                self.forwarded += broken_by == "cut_requests"
                writer.write(chunk)
                await writer.drain()
        for each in both:
            each.close()


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
