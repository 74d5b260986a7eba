"""What recovery does with a log that a crash left in doubt, and with one that cannot be."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from types import SimpleNamespace

import pytest

from uringblob import AsyncFileBlobStore, BlobGuid, StoreCorrupt
from uringblob.store.format import (
    BLOCK_SIZE,
    COUNT_LIMIT,
    decode_block,
    decode_superblock,
    delete_record,
    encode_block,
    entry_slot,
    pack_entry,
    set_record,
)
from uringblob.store.opening import recover as recovery

PAGE = 4096
GUIDS = [BlobGuid(bytes([n]) * 16) for n in range(3)]


@pytest.fixture
def in_doubt(store_path):
    """A store whose process died after its last group: three frames, one of them after a deletion."""
    code = (
        "import asyncio, os, uringblob\n"
        "async def main():\n"
        f"    store = await uringblob.AsyncFileBlobStore.open({store_path!r}, page_size={PAGE})\n"
        f"    await store.commit([({bytes(GUIDS[0])!r}, b'0' * {PAGE})])\n"
        f"    changes = [(bytes([n]) * 16, bytes([n]) * {PAGE}) for n in (1, 2)]\n"
        f"    await store.commit(changes, [{bytes(GUIDS[0])!r}])\n"
        "    os._exit(0)\n"
        "asyncio.run(main())\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    with open(store_path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # the kernel ends the ring, which has the file, after the process
    return store_path


async def frames(store):
    found = {}
    for guid in await store.list_blobs():
        frame = bytearray(PAGE)
        await store.read_blob(guid, frame)
        found[guid] = bytes(frame)
    return found


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "buffered"])
async def test_a_group_in_doubt_is_written_again_where_the_cache_might_lie(
    needs_direct, in_doubt, engine, monkeypatch, direct
):
    """Rule 12: through the page cache its frames may look right and be lost; so they are written again.

    The frames, then their blocks, then a flush; a deletion has no frame.
    """
    written = []
    real = recovery.FileIO.write

    async def write(self, offset, data, what):
        if what == "confirming the last group":
            written.append(bytes(data[:4]))
        await real(self, offset, data, what)

    monkeypatch.setattr(recovery.FileIO, "write", write)
    async with AsyncFileBlobStore.open(in_doubt, engine=engine, direct=direct) as store:
        assert await frames(store) == {guid: bytes(guid)[:1] * PAGE for guid in GUIDS[1:]}
        assert (await store.verify()).ok
    assert sorted(written[:2]) == ([] if direct else [b"\1\1\1\1", b"\2\2\2\2"]), "in any order"
    assert written[2:] == ([] if direct else [b"ublk"])
    written.clear()
    async with AsyncFileBlobStore.open(in_doubt, engine=engine, direct=direct):
        assert written == [], "it was sealed, so nothing is in doubt"


async def test_a_second_change_of_logs_is_damage():
    """The log that a switch leads to is used only when both superblocks name it: it holds no other switch."""
    medium = SimpleNamespace(path="some.blobs")
    block = SimpleNamespace(seq=9)
    with pytest.raises(StoreCorrupt, match=r"some\.blobs: a second change of logs .* group 9"):
        await recovery._follow(medium, None, (8192, block), switch_seq=7)


@pytest.mark.parametrize("link", [(7, 5, 0), (7, COUNT_LIMIT, 1)], ids=["no slot", "past every file"])
async def test_a_change_of_logs_to_nowhere_is_damage(link):
    medium = SimpleNamespace(path="some.blobs")
    block = SimpleNamespace(seq=9, link=lambda: (*link, 0))
    with pytest.raises(
        StoreCorrupt, match=r"the record of the change of logs is damaged \(offset 8192, group 9\)"
    ):
        await recovery._follow(medium, None, (8192, block), switch_seq=None)


async def test_a_log_that_begins_where_no_number_can_be_counted_up_is_damage():
    medium = SimpleNamespace(path="some.blobs")
    group = [(4096, SimpleNamespace(seq=COUNT_LIMIT))]

    async def read(*_):
        return group

    with pytest.raises(
        StoreCorrupt, match=rf"first group of the log is damaged \(offset 4096, group {COUNT_LIMIT}\)"
    ):
        await recovery._replay_carry(
            medium, SimpleNamespace(group=read), SimpleNamespace(apply=lambda _: None), None
        )


def with_its_last_frame_at(slot, path):
    """Write the last group's block again, sound, and with its last frame at ``slot``."""
    with open(path, "r+b") as file:
        content = file.read()
        store_id = decode_superblock(content[:BLOCK_SIZE], 0).store_id
        blocks = [
            (offset, block)
            for offset in range(2 * BLOCK_SIZE, len(content), BLOCK_SIZE)
            if (block := decode_block(store_id, offset, content[offset : offset + BLOCK_SIZE]))
        ]
        offset, last = max(blocks, key=lambda found: found[1].seq)
        entries = dict(last.entries())
        entries[bytes(GUIDS[2])] = pack_entry(slot, 0)
        file.seek(offset)
        file.write(
            encode_block(
                store_id,
                offset,
                log_id=last.log_id,
                block_type=last.type,
                seq=last.seq,
                records=[
                    set_record(guid, entry) if entry_slot(entry) else delete_record(guid)
                    for guid, entry in entries.items()
                ],
                page_size=last.page_size,
            )
        )


@pytest.mark.parametrize("read_only", [True, False])
async def test_a_last_group_that_names_a_slot_past_every_file_is_dropped(in_doubt, engine, read_only):
    """Found by the fuzzer: the slot's offset was no number that a request can have, and that was the error."""
    with_its_last_frame_at((1 << 56) - 1, in_doubt)
    async with AsyncFileBlobStore.open(in_doubt, engine=engine, read_only=read_only) as store:
        assert await frames(store) == {GUIDS[0]: b"0" * PAGE}
        assert "group 3" in " ".join(store.stats().notes)
