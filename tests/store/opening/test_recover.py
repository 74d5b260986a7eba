"""What recovery does with a log that a crash left in doubt, and with one that cannot be."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from uringblob import AsyncFileBlobStore, BlobGuid, StoreCorrupt
from uringblob.store.format import COUNT_LIMIT
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
