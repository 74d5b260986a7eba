"""Load for the service, and checks of its answers: ``python -m blob_service.load URL``.

Every client owns a few names and knows what each may hold: what was acknowledged last, and what was
attempted since without an answer.  Whatever else comes back is a lost or a mixed-up frame.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import hashlib
import random
import time
import uuid

import httpx

#: Statuses that promise that nothing was changed.
REFUSALS = {404, 408, 409, 412, 413, 503, 507}
Digest = bytes


class Lost(AssertionError):
    """The service does not hold what it acknowledged."""


class Client:
    """One client with names of its own."""

    def __init__(self, http: httpx.AsyncClient, rng: random.Random, names: int, size_max: int) -> None:
        self.acknowledged = 0
        self.answers: collections.Counter[str] = collections.Counter()
        self.seconds: list[float] = []
        self._http = http
        self._rng = rng
        self._size_max = size_max
        #: What a GET of each name may return; ``None`` means 404.
        self._may_hold: dict[str, set[Digest | None]] = {
            str(uuid.UUID(bytes=rng.randbytes(16))): {None} for _ in range(names)
        }

    async def step(self) -> None:
        """Do one request; a connection that breaks is counted and raised.

        :raises Lost: a GET brought what it must not.
        :raises httpx.TransportError: no answer came.
        """
        name = self._rng.choice(list(self._may_hold))
        kind = self._rng.choices(["PUT", "GET", "DELETE"], [6, 3, 1])[0]
        began = time.perf_counter()
        try:
            if kind == "GET":
                status = await self.check(name)
            elif kind == "PUT":
                status = await self._put(name)
            else:
                status = await self._change("DELETE", name, None, b"")
        except httpx.TransportError as error:
            # An incomplete answer differs from none.
            cut_off = "complete message body" in str(error)
            self.answers[f"{kind} {'cut off' if cut_off else type(error).__name__}"] += 1
            raise
        self.answers[f"{kind} {status}"] += 1
        self.seconds.append(time.perf_counter() - began)

    async def check(self, name: str) -> int:
        """GET a name and check the answer."""
        response = await self._http.get(f"/frames/{name}")
        may_hold = self._may_hold[name]
        if response.status_code in (200, 404):
            found = digest(response.content) if response.status_code == 200 else None
            if found not in may_hold:
                raise Lost(f"frame {name}: {response.status_code}, which is none of {len(may_hold)} allowed")
            # A read resolves the doubt: what was read once stays.
            may_hold.intersection_update({found})
        elif response.status_code not in REFUSALS:
            raise Lost(f"frame {name}: GET was answered {response.status_code}: {response.text}")
        return response.status_code

    async def check_all(self) -> None:
        """Check every name."""
        for name in self._may_hold:
            if await self.check(name) not in (200, 404):
                raise Lost(f"frame {name} could not be read")

    async def _put(self, name: str) -> int:
        body = self._rng.randbytes(self._rng.randrange(self._size_max))
        return await self._change("PUT", name, digest(body), body)

    async def _change(self, method: str, name: str, becomes: Digest | None, body: bytes) -> int:
        before = set(self._may_hold[name])
        self._may_hold[name].add(becomes)  # from here on, answered or not
        response = await self._http.request(method, f"/frames/{name}", content=body)
        if response.is_success:
            self._may_hold[name] = {becomes}
            self.acknowledged += 1
        elif response.status_code in REFUSALS:
            self._may_hold[name] = before
        return response.status_code


def digest(body: bytes) -> Digest:
    """Return a short digest of a body."""
    return hashlib.blake2b(body, digest_size=16).digest()


async def run(url: str, *, clients: int, seconds: float, size_max: int, seed: int) -> None:
    """Load the service for a while, check all of it at the end, and print figures."""
    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60) as http:
        team = [Client(http, random.Random(seed + number), 8, size_max) for number in range(clients)]  # noqa: S311 - repeatable
        began = time.monotonic()

        async def work(client: Client) -> None:
            while time.monotonic() < began + seconds:
                await client.step()

        await asyncio.gather(*map(work, team))
        passed_s = time.monotonic() - began
        for client in team:
            await client.check_all()
    answers = sum((client.answers for client in team), collections.Counter[str]())
    durations = sorted(duration for client in team for duration in client.seconds)
    for answer, count in sorted(answers.items()):
        print(f"{answer:24} {count:8}")
    print(
        f"{len(durations) / passed_s:.0f} requests/s, median {1000 * durations[len(durations) // 2]:.1f} ms, ",
        end="",
    )
    print(f"p99 {1000 * durations[len(durations) * 99 // 100]:.1f} ms; every acknowledged frame is there")


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="blob_service.load", description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--size-max", type=int, default=500_000, help="bytes a body has at most")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    asyncio.run(
        run(
            options.url,
            clients=options.clients,
            seconds=options.seconds,
            size_max=options.size_max,
            seed=options.seed,
        )
    )


if __name__ == "__main__":
    main()
