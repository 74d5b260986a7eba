"""Two uvicorn workers read one store while one server writes it: what was answered is there in both."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("uvicorn", reason="the extra [examples] is not installed")

from uringblob import BlobGuid

pytestmark = pytest.mark.one_interpreter

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
PAGE = 4096
STARTS_S_MAX = 60


@contextlib.contextmanager
def process(*arguments, **environment):
    paths = os.pathsep.join(filter(None, [str(EXAMPLES), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": paths, **environment}
    command = [sys.executable, "-m", *map(str, arguments)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            child.send_signal(signal.SIGTERM)
            child.communicate(timeout=STARTS_S_MAX)


@contextlib.contextmanager
def workers(port, store, at):
    options = ("--workers", 2, "--app-dir", EXAMPLES, "--port", port, "--log-level", "warning")
    with process("uvicorn", *options, "shared_store.app:app", STORE=store, SOCKET=at):
        yield


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def ask(port, method, guid, body=None):
    """Return status, body and worker of one request, on a connection of its own."""
    deadline = time.monotonic() + STARTS_S_MAX
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=STARTS_S_MAX)
        with contextlib.closing(connection):
            try:
                connection.request(method, f"/{guid}", body)
                answer = connection.getresponse()
                return answer.status, answer.read(), answer.headers["x-worker"]
            except ConnectionRefusedError:
                if time.monotonic() > deadline:
                    raise
        time.sleep(0.05)  # it is starting


def test_two_workers_and_one_who_writes(store_path, tmp_path):
    at, port, guid = tmp_path / "socket", free_port(), BlobGuid.random()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(process("shared_store.server", store_path, at))
        assert server.stdout.readline().startswith("serving")
        with workers(port, store_path, str(at)):
            assert ask(port, "GET", guid)[0] == 404
            seen: set[str] = set()
            for version in range(200):
                frame = version.to_bytes(8, "big") * (PAGE // 8)
                assert ask(port, "PUT", guid, frame)[0] == 204
                for _ in range(2):
                    status, body, worker = ask(port, "GET", guid)
                    assert (status, body) == (200, frame), "a worker shows what was replaced"
                    seen.add(worker)
                if len(seen) == 2 and version >= 20:
                    break
            assert len(seen) == 2, "one worker answered all requests"
            assert ask(port, "PUT", guid, b"short")[0] == 503
            assert ask(port, "DELETE", guid)[0] == 204
            assert ask(port, "GET", guid)[0] == 404
            assert ask(port, "GET", "no-guid")[0] == 400
            assert ask(port, "PUT", guid, frame)[0] == 204
            server.kill()
            assert ask(port, "GET", guid)[:2] == (200, frame)  # nobody needs the one who writes for that
            assert {ask(port, "PUT", guid, frame)[0] for _ in range(4)} == {503}
            server = stack.enter_context(process("shared_store.server", store_path, at))
            assert server.stdout.readline().startswith("serving")
            assert ask(port, "PUT", guid, bytes(PAGE))[0] == 204
            assert ask(port, "GET", guid)[:2] == (200, bytes(PAGE))
