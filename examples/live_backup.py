"""Back up a store that is being written, restore the backup, and compare: a drill.

Run it: ``python examples/live_backup.py DIRECTORY``.

A backup copies a snapshot: what is written, replaced and deleted while it runs is not in it.  A second one copies
only what changed since.  The first is cut off half-way on purpose, and goes on.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os

from uringblob import AsyncFileBlobStore, BackupReport, BlobGuid

PAGE_SIZE = 65536


def frame(stamp: int) -> bytes:
    """Return a frame that is ``stamp`` all over."""
    return stamp.to_bytes(8, "little") * (PAGE_SIZE // 8)


async def keep_writing(store: AsyncFileBlobStore, guids: list[BlobGuid]) -> None:
    """Replace one blob after the other, durably, until cancelled."""
    for stamp, guid in zip(itertools.count(1_000_000), itertools.cycle(guids)):
        await store.commit([(guid, frame(stamp))])


async def checksums(store: AsyncFileBlobStore) -> dict[BlobGuid, int]:
    """Return what the store holds, by name: no frame is read for it."""
    return {guid: await store.checksum(guid) async for guid in store.iter_blobs()}


async def cut_off(store: AsyncFileBlobStore, backup: str) -> None:
    """Begin a backup and cancel it after its first step."""
    running = asyncio.ensure_future(store.backup(backup, lambda _done, _total: running.cancel()))
    await asyncio.wait([running])


async def live_backup(directory: str, blobs: int, rate: float | None) -> tuple[BackupReport, BackupReport]:
    """Back up beside a writer, twice; return both reports."""
    backup = os.path.join(directory, "backup.blobs")
    guids = [BlobGuid.of(f"frame {number}") for number in range(blobs)]
    async with AsyncFileBlobStore.open(os.path.join(directory, "live.blobs"), page_size=PAGE_SIZE) as store:
        await store.write_blobs([(guid, frame(number)) for number, guid in enumerate(guids)])
        await store.flush()
        await cut_off(store, backup)
        moment = await checksums(store)
        begun = asyncio.ensure_future(store.backup(backup, rate=rate))
        writer = asyncio.ensure_future(keep_writing(store, guids))
        first = await begun
        await restore_and_compare(directory, backup, moment)
        writer.cancel()
        await asyncio.wait([writer])
        second = await store.backup(backup)
        await restore_and_compare(directory, backup, await checksums(store))
    return first, second


async def restore_and_compare(directory: str, backup: str, wanted: dict[BlobGuid, int]) -> None:
    """Restore ``backup`` into a new file, read every frame of that, and compare it with ``wanted``."""
    restored = os.path.join(directory, "restored.blobs")
    async with AsyncFileBlobStore.open(backup, read_only=True) as source:
        report = await source.backup(restored)
    if not report.ok:
        raise SystemExit(f"the backup is damaged:\n{report}")
    async with AsyncFileBlobStore.open(restored) as store:
        if not (await store.verify()).ok or await checksums(store) != wanted:
            raise SystemExit("the restored store is not what was backed up")
    os.unlink(restored)


def main() -> None:
    """Parse the command line, and show both reports."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", help="an empty directory")
    parser.add_argument("--blobs", type=int, default=2000)
    parser.add_argument("--rate", type=float, help="bytes per second")
    args = parser.parse_args()
    first, second = asyncio.run(live_backup(args.directory, args.blobs, args.rate))
    print(f"beside a writer: {first}")
    print(f"what changed since: {second}")
    print("restored and compared: equal, both times")


if __name__ == "__main__":
    main()
