"""How far a store in a bucket goes: what it costs on paper, and what sharding gives, simulated.

::

    python examples/scale_out.py                 # both tables of docs/scale.md
    python examples/scale_out.py --frames 1e7 --readers 50

The simulation runs the real store on a simulated bucket whose requests take time; the loop's clock is
simulated, too, so an hour of it takes seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import random
import zlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from uringblob import BlobGuid
from uringblob.remote import AsyncRemoteBlobStore, Bucket, Listed
from uringblob.testing import SimLoop
from uringblob.testing.sim.bucket import SimBucket

FRAME_BYTES = 512 << 10
#: Of the simulation: frames are small here and take the time of large ones.
PAGE_SIZE = 4096
IN_FLIGHT = 64

#: S3's list prices of us-east-1, in dollars; requests and gigabyte-months.
PUT, GET, GB_MONTH = 5e-6, 0.4e-6, 0.023
#: Measured: docs/scale.md says where.
MAP_BYTES, MAP_MEMORY_BYTES, MAP_LOAD_S = 50, 260, 2.4e-6
#: Assumed of a bucket in the same region: seconds to the first byte, and bytes a second of one request.
LATENCY_S, BYTES_A_SECOND = 0.03, 90e6
#: What a machine's network carries, in bytes a second (25 Gbit/s).
NETWORK = 3e9


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a number of frames costs on paper."""

    shards: int
    #: The map of one shard: bytes in the bucket, bytes of memory, and seconds to open.
    map_bytes: float
    memory_bytes: float
    open_s: float
    #: Dollars: to write everything once in batches, to keep it a month, to read it once by every reader.
    write_usd: float
    month_usd: float
    read_usd: float
    #: Hours of one machine to write all.
    write_h: float
    #: Dollars a month for readers that look for changes once a second, and gets a second of that.
    follow_usd: float
    follow_gets: float


def cost(frames: float, readers: int, *, batch: int = 64, shard_frames: float = 1e7) -> Cost:
    """Return what ``frames`` in shards of at most ``shard_frames`` cost, written ``batch`` at a time."""
    shards = max(1, round(frames / shard_frames))
    of_one = frames / shards
    map_bytes = of_one * MAP_BYTES
    puts_a_second = min(shards * IN_FLIGHT / put_s(FRAME_BYTES), NETWORK / FRAME_BYTES)
    seconds = frames * (1 / puts_a_second + LATENCY_S / batch / shards)
    follow_gets = readers * shards * 1.0
    return Cost(
        shards=shards,
        map_bytes=map_bytes,
        memory_bytes=of_one * MAP_MEMORY_BYTES,
        open_s=5 * LATENCY_S + map_bytes / BYTES_A_SECOND + of_one * MAP_LOAD_S,
        write_usd=frames * (1 + 1 / batch) * PUT,
        month_usd=frames * FRAME_BYTES / 1e9 * GB_MONTH,
        read_usd=frames * readers * GET,
        write_h=seconds / 3600,
        follow_usd=follow_gets * 30 * 86400 * GET,
        follow_gets=follow_gets,
    )


def put_s(size_bytes: float) -> float:
    """Return the seconds of one request with so many bytes."""
    return LATENCY_S + size_bytes / BYTES_A_SECOND


# -- sharding -------------------------------------------------------------------------------------


class ShardedBlobStore:
    """Blobs in several prefixes, each with a writer of its own, chosen by the name's first half.

    What is committed together must lie in one shard: give it names with one first half.  That is all that is lost.
    """

    def __init__(self, shards: Sequence[AsyncRemoteBlobStore]) -> None:
        self.shards = shards

    def shard(self, guid: BlobGuid) -> AsyncRemoteBlobStore:
        """Return the shard of a name.  Their number never changes: moving blobs is a copy."""
        return self.shards[zlib.crc32(guid[:8]) % len(self.shards)]

    async def commit(self, writes: Sequence[tuple[BlobGuid, bytes]]) -> None:
        """Commit to one shard."""
        (store,) = {self.shard(guid) for guid, _ in writes}
        await store.commit(writes)


class SlowBucket:
    """A :class:`~uringblob.remote.Bucket` whose requests take a real one's time, with frames of ``FRAME_BYTES``."""

    def __init__(self, bucket: Bucket, counts: dict[str, int]) -> None:
        self._bucket, self._counts, self.name = bucket, counts, bucket.name

    async def _travel(self, method: str, size_bytes: int = 0) -> None:
        self._counts[method] = self._counts.get(method, 0) + 1
        await asyncio.sleep(put_s(FRAME_BYTES if size_bytes == PAGE_SIZE else size_bytes))

    async def get(self, key: str) -> tuple[bytes | memoryview, str]:
        """Take the time of the body."""
        body, etag = await self._bucket.get(key)
        await self._travel("get", len(body))
        return body, etag

    async def put(self, key: str, body: Any) -> None:
        """Take the time of the body."""
        await self._travel("put", len(body))
        await self._bucket.put(key, body)

    async def create(self, key: str, body: Any) -> None:
        """Take the time of a group."""
        await self._travel("create", len(body))
        await self._bucket.create(key, body)

    async def replace(self, key: str, body: Any, etag: str) -> str:
        """Take the time of a head."""
        await self._travel("replace", len(body))
        return await self._bucket.replace(key, body, etag)

    async def delete(self, keys: Sequence[str]) -> None:
        """Take the time of an answer."""
        await self._travel("delete")
        await self._bucket.delete(keys)

    async def list(self, prefix: str, after: str = "") -> AsyncIterator[Listed]:
        """Take the time of one page."""
        await self._travel("list")
        async for listed in self._bucket.list(prefix, after):
            yield listed

    async def aclose(self) -> None:
        """End the connections."""
        await self._bucket.aclose()


@dataclasses.dataclass(frozen=True)
class Measured:
    """One run of the simulation."""

    shards: int
    commits_a_second: float
    mean_latency_s: float
    puts_a_commit: float
    groups_a_commit: float


def simulate(shards: int, *, clients: int = 1024, commits: int = 4, seed: int = 1) -> Measured:
    """Let ``clients`` commit one frame after the other, as fast as they can."""
    loop, rng, counts = SimLoop(), random.Random(seed), dict[str, int]()  # type: ignore[abstract]

    async def run() -> Measured:
        buckets = [SimBucket(seed + number) for number in range(shards)]
        stores = [
            await AsyncRemoteBlobStore.open(SlowBucket(bucket.client(), counts), page_size=PAGE_SIZE)
            for bucket in buckets
        ]
        store, frame, waits = ShardedBlobStore(stores), bytes(PAGE_SIZE), list[float]()
        counts.clear()
        began = loop.time()

        async def client() -> None:
            for _ in range(commits):
                start = loop.time()
                await store.commit([(BlobGuid(rng.randbytes(16)), frame)])
                waits.append(loop.time() - start)

        await asyncio.gather(*(client() for _ in range(clients)))
        seconds = loop.time() - began
        puts, groups = counts["put"], counts["create"]
        for each in stores:
            await each.aclose()
        done = clients * commits
        return Measured(shards, done / seconds, sum(waits) / done, puts / done, groups / done)

    return loop.run(run())


# -- the tables -----------------------------------------------------------------------------------


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--frames", type=float, nargs="*", default=[1e6, 1e7, 1e8, 1e9])
    parser.add_argument("--readers", type=int, nargs="*", default=[1, 1000])
    parser.add_argument("--shards", type=int, nargs="*", default=[1, 2, 4, 8])
    given = parser.parse_args()
    print("| frames | shards | map | memory | opens in | write all | takes | keep a month |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for frames in given.frames:
        c = cost(frames, 1)
        print(
            f"| {frames:.0e} | {c.shards} | {c.map_bytes / 1e6:,.0f} MB | {c.memory_bytes / 1e9:.1f} GB | "
            f"{c.open_s:.1f} s | {c.write_usd:,.0f} $ | {c.write_h:,.1f} h | {c.month_usd:,.0f} $ |"
        )
    print("\n| frames | readers | each reads all once | following, gets a second | following, a month |")
    print("| --- | --- | --- | --- | --- |")
    for frames in given.frames:
        for readers in given.readers:
            c = cost(frames, readers)
            print(
                f"| {frames:.0e} | {readers} | {c.read_usd:,.1f} $ | {c.follow_gets:,.0f} | {c.follow_usd:,.0f} $ |"
            )
    print("\n| shards | commits a second | mean latency | puts a commit | groups a commit |")
    print("| --- | --- | --- | --- | --- |")
    for shards in given.shards:
        m = simulate(shards)
        print(
            f"| {shards} | {m.commits_a_second:,.0f} | {m.mean_latency_s * 1000:.0f} ms | {m.puts_a_commit:.2f} | "
            f"{m.groups_a_commit:.3f} |"
        )


if __name__ == "__main__":
    main()
