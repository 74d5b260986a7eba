"""Two uvicorn workers read one store while one server writes it: what was answered is there in both."""

from __future__ import annotations

import contextlib
import http.client
import itertools
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
def workers(web, store, at):
    """They serve HTTP on a Unix socket: a TCP port that was free a moment ago may be taken."""
    options = ("--workers", 2, "--app-dir", EXAMPLES, "--uds", web, "--log-level", "warning")
    with process("uvicorn", *options, "shared_store.app:app", STORE=store, SOCKET=at):
        yield


class Connection(http.client.HTTPConnection):
    """One to a Unix socket."""

    def __init__(self, web):
        super().__init__("localhost")
        self._web = web

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(STARTS_S_MAX)
        self.sock.connect(self._web)


def ask(web, method, guid, body=None):
    """Return status, body and worker of one request, on a connection of its own."""
    deadline = time.monotonic() + STARTS_S_MAX
    while True:
        with contextlib.closing(Connection(web)) as connection:
            try:
                connection.request(method, f"/{guid}", body)
                answer = connection.getresponse()
                return answer.status, answer.read(), answer.headers["x-worker"]
            except (ConnectionRefusedError, FileNotFoundError):
                if time.monotonic() > deadline:
                    raise
        time.sleep(0.05)  # it is starting


def until_both_workers_answered(request):
    """Call ``request``, which returns who answered; one worker may have started long before the other."""
    deadline, seen = time.monotonic() + STARTS_S_MAX, set()
    while len(seen) < 2:
        assert time.monotonic() < deadline, "one worker answered all requests"
        seen.add(request())


def test_two_workers_and_one_who_writes(store_path, tmp_path):
    at, web, guid = tmp_path / "socket", str(tmp_path / "http"), BlobGuid.random()
    frame, versions = bytes(PAGE), itertools.count(1)

    def put():
        nonlocal frame
        frame = next(versions).to_bytes(8, "big") * (PAGE // 8)
        status, _, worker = ask(web, "PUT", guid, frame)
        assert status == 204
        return worker

    def look():
        status, body, worker = ask(web, "GET", guid)
        assert (status, body) == (200, frame), "a worker shows what was replaced"
        return worker

    def put_and_look():
        put()
        return look()

    with contextlib.ExitStack() as stack:
        server = stack.enter_context(process("shared_store.server", store_path, at))
        assert server.stdout.readline().startswith("serving")
        with workers(web, store_path, str(at)):
            assert ask(web, "GET", guid)[0] == 404
            until_both_workers_answered(put_and_look)
            for _ in range(20):
                put_and_look()
            until_both_workers_answered(put)  # now both have a connection to the server that will die
            assert ask(web, "PUT", guid, b"short")[0] == 503
            assert ask(web, "DELETE", guid)[0] == 204
            assert ask(web, "GET", guid)[0] == 404
            assert ask(web, "GET", "no-guid")[0] == 400
            put()
            server.kill()
            look()  # nobody needs the one who writes for that
            assert ask(web, "PUT", guid, frame)[0] == 503
            server = stack.enter_context(process("shared_store.server", store_path, at))
            assert server.stdout.readline().startswith("serving")
            until_both_workers_answered(put)  # also the one that has not seen the first server's end
            look()
