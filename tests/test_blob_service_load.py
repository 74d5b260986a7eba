"""The example service as a process, loaded over loopback, killed, stopped and restarted under load.

Nothing here sleeps: the service says when it listens, and each end comes after so many answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

httpx = pytest.importorskip("httpx", reason="the extra [examples] is not installed")
pytest.importorskip("uvicorn", reason="the extra [examples] is not installed")

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
sys.path.insert(0, str(EXAMPLES))

from blob_service.load import Client, Lost  # noqa: E402 - needs the path above

pytestmark = [pytest.mark.one_interpreter, pytest.mark.timeout(120)]

CLIENTS = 8
PAGE = 16384


class Process:
    """The service, started from the command line; its port is what it says."""

    def __init__(self, store_path, *options, file_size_max=resource.RLIM_INFINITY):
        # -B: where files may not grow byte code would be cut, and CPython takes the half for the whole.
        command = [sys.executable, "-B", "-m", "blob_service", store_path, "--port", "0"]
        command += ["--page-size", str(PAGE)]
        self.process = subprocess.Popen(
            [*command, *options],
            cwd=EXAMPLES,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (file_size_max, file_size_max)),
        )
        line = self.process.stdout.readline()
        assert line.startswith("listening on "), line
        self.url = line.split()[-1]

    def end(self, number):
        self.process.send_signal(number)
        with self.process.stdout as output:
            self.last_words = output.read().strip()
        return self.process.wait(60)

    def stop(self):
        """SIGTERM: uvicorn dies of the signal when everything is done, and the service says that it is."""
        assert self.end(signal.SIGTERM) == -signal.SIGTERM
        assert self.last_words == "closed"


@contextlib.contextmanager
def service(store_path, *options, **limits):
    process = Process(store_path, *options, **limits)
    try:
        yield process
    finally:
        process.process.kill()
        process.process.wait()
        process.process.stdout.close()


def team_of(http, seed):
    return [Client(http, random.Random(f"{seed} {number}"), 4, PAGE - 64) for number in range(CLIENTS)]


async def work_until_it_breaks(client, enough, on_enough):
    """Load until the connection breaks; have ``on_enough`` called when ``enough`` changes were answered."""
    with contextlib.suppress(httpx.TransportError):
        while True:
            await client.step()
            enough -= 1
            if enough == 0:
                on_enough()


async def loaded(url, team, steps, end):
    """Load the service; when the first client has had ``steps`` answers, ``end()`` it in a thread."""
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        for client in team:
            client._http = http
        ended = None

        def on_enough():
            nonlocal ended
            ended = ended or asyncio.ensure_future(asyncio.to_thread(end))

        await asyncio.gather(*(work_until_it_breaks(client, steps, on_enough) for client in team))
        return await ended


async def judge(url, team):
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        for client in team:
            client._http = http
            await client.check_all()


async def test_killed_and_restarted_under_load_no_acknowledged_frame_is_lost(store_path):
    """Three times SIGKILL at a moment that each run's own speed decides."""
    seed = random.randrange(1 << 32)
    team = team_of(None, seed)
    print("replay with seed", seed)
    for round_number in range(3):
        with service(store_path) as process:
            await judge(process.url, team)  # what the rounds before left
            status = await loaded(
                process.url, team, 20 + 7 * round_number, lambda: process.end(signal.SIGKILL)
            )
            assert status == -signal.SIGKILL
    with service(store_path) as process:
        await judge(process.url, team)
        process.stop()
    assert sum(client.acknowledged for client in team) > 20 * CLIENTS
    # The load was real: some requests were cut off in the middle.
    assert any("Error" in answer for client in team for answer in client.answers)


async def test_the_judge_finds_a_lost_frame(store_path):
    """The test above can fail: a service that forgets is found."""
    with service(store_path) as process:
        async with httpx.AsyncClient(base_url=process.url) as http:
            client = Client(http, random.Random(1), 1, 100)
            (name,) = client._may_hold
            await client._put(name)
            await http.delete(f"/frames/{name}")
            with pytest.raises(Lost):
                await client.check_all()


async def test_sigterm_under_load_loses_nothing_and_closes_cleanly(store_path):
    seed = random.randrange(1 << 32)
    team = team_of(None, seed)
    print("replay with seed", seed)
    with service(store_path) as process:
        await loaded(process.url, team, 30, process.stop)
    assert not [answer for client in team for answer in client.answers if "cut off" in answer]
    with service(store_path) as process:
        await judge(process.url, team)
        health = httpx.get(f"{process.url}/healthz").json()
        assert health["healthy"]


async def test_sigterm_answers_what_is_under_way(store_path):
    """Uploads that are half there when the signal comes get their answer, and are durable."""
    uploads = 4
    with service(store_path) as process:
        port = int(process.url.rsplit(":", 1)[1])
        connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(uploads)]
        for number, (_, writer) in enumerate(connections):
            name = f"/frames/{number:032x}"
            writer.write(f"PUT {name} HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nhalf-".encode())
        while httpx.get(f"{process.url}/healthz").json()["requests_in_flight"] < uploads:
            pass  # each question is a round trip: no sleep, no guess
        ending = asyncio.ensure_future(asyncio.to_thread(process.stop))
        await refused(port)
        for _, writer in connections:
            writer.write(b"there")
        for reader, writer in connections:
            assert (await reader.read()).startswith(b"HTTP/1.1 201 ")  # and then the connection's end
            writer.close()
            await writer.wait_closed()
        await ending
    with service(store_path) as process:
        for number in range(uploads):
            assert httpx.get(f"{process.url}/frames/{number:032x}").content == b"half-there"


async def refused(port):
    """Come back when nobody listens any more: the service has seen the signal."""
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            return
        except ConnectionResetError:
            continue  # it stopped listening between two steps of this very connection
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_a_client_that_takes_no_answer_does_not_hold_up_the_end(store_path):
    """It asks for more than all buffers between the two hold, and reads nothing."""
    with service(store_path, "--page-size", "16777216", "--shutdown-timeout", "1") as process:
        httpx.put(f"{process.url}/frames/{1:032x}", content=bytes(16_000_000)).raise_for_status()
        _, writer = await asyncio.open_connection("127.0.0.1", int(process.url.rsplit(":", 1)[1]), limit=1)
        writer.write(f"GET /frames/{1:032x} HTTP/1.1\r\nHost: t\r\n\r\n".encode())
        while not httpx.get(f"{process.url}/healthz").json()["requests_in_flight"]:
            pass
        await asyncio.to_thread(process.stop)
        writer.transport.abort()


async def test_more_than_is_allowed_is_told_to_come_back(store_path):
    """Twenty uploads that do not end, where four may: sixteen are told so at once, none waits."""
    with service(store_path, "--requests-max", "4") as process:
        port = int(process.url.rsplit(":", 1)[1])
        connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]
        for number, (_, writer) in enumerate(connections):
            head = f"PUT /frames/{number:032x} HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\n\r\n"
            writer.write(head.encode())
        answers = [asyncio.ensure_future(reader.readuntil(b"\r\n\r\n")) for reader, _ in connections]
        done: set = set()
        while len(done) < 16:
            done, _ = await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
            done = {answer for answer in answers if answer.done()}
        for answer in done:
            assert answer.result().startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: 1\r\n" in answer.result().lower()
        for (_, writer), answer in zip(connections, answers, strict=True):
            if answer not in done:
                writer.write(b"and there")
        for answer in answers:
            if answer not in done:
                assert (await answer).startswith(b"HTTP/1.1 201 ")
        for _, writer in connections:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


def test_a_file_that_may_not_grow_is_507_and_deleting_makes_room(store_path):
    """The system's own refusal (EFBIG), not a fake's: nothing is lost, and the service goes on."""
    with service(store_path, file_size_max=3_000_000) as process, httpx.Client(base_url=process.url) as http:
        statuses = []
        while not statuses or statuses[-1] == 201:
            statuses.append(http.put(f"/frames/{len(statuses) + 1:032x}", content=b"x" * 9000).status_code)
        assert statuses[-1] == 507
        stored = len(statuses) - 1
        assert stored > 20
        assert http.get("/healthz").status_code == 200
        assert len(http.get("/frames").json()["frames"]) == stored
        for number in (1, 2, 3):
            assert http.delete(f"/frames/{number:032x}").status_code == 204
        assert http.put(f"/frames/{1:032x}", content=b"again").status_code == 201
        process.stop()
    with service(store_path) as process:
        names = httpx.get(f"{process.url}/frames").json()["frames"]
        assert len(names) == stored - 2
        assert httpx.get(f"{process.url}/frames/{1:032x}").content == b"again"


def test_the_load_generator_as_a_command(store_path):
    with service(store_path) as process:
        command = [
            sys.executable,
            "-m",
            "blob_service.load",
            process.url,
            "--seconds",
            "1",
            "--size-max",
            "9000",
        ]
        done = subprocess.run(command, cwd=EXAMPLES, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        assert "every acknowledged frame is there" in done.stdout


def test_a_store_that_cannot_be_opened_ends_the_service(disk_dir):
    (disk_dir / "not-a-store").write_bytes(b"no")
    command = [sys.executable, "-m", "blob_service", str(disk_dir / "not-a-store"), "--port", "0"]
    done = subprocess.run(command, cwd=EXAMPLES, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 3  # uvicorn's status for a failed start
    assert "StoreCorrupt" in done.stderr
