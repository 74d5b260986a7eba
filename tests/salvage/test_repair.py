"""``repair`` on real files: locks, targets, older versions, several stores in one file, format version 1."""

from __future__ import annotations

import lzma
import os
import shutil
from pathlib import Path

import pytest

from uringblob import BlobGuid, FileBlobStore, StoreCorrupt, StoreLocked
from uringblob.salvage.repair import repair
from uringblob.salvage.scan import Source

pytestmark = pytest.mark.one_interpreter

PAGE = 65536
GUIDS = [BlobGuid(bytes([n]) * 16) for n in range(6)]
DATA = Path(__file__).resolve().parents[1] / "data"


def frame(stamp: int) -> bytes:
    return bytes([stamp]) * PAGE


@pytest.fixture
def store(store_path):
    """A closed store of six frames, the first two of which were written twice."""
    with FileBlobStore.open(store_path, page_size=PAGE) as opened:
        opened.commit([(guid, frame(n)) for n, guid in enumerate(GUIDS)])
        opened.commit([(guid, frame(100 + n)) for n, guid in enumerate(GUIDS[:2])])
    return store_path


@pytest.fixture
def target(store_path):
    return f"{store_path}.saved"


def overwrite(path, offset, data):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def damage_frame(path, stamp):
    content = Path(path).read_bytes()
    overwrite(path, content.index(frame(stamp)) + 4096, b"rot")


def contents(path):
    with FileBlobStore.open(path, read_only=True) as store, store.alloc_blob_buf_uninit() as buf:
        found = {}
        for guid in store.list_blobs():
            store.read_blob(guid, buf)
            found[guid] = bytes(buf.view)
        return found


NOW = {guid: frame(100 + n if n < 2 else n) for n, guid in enumerate(GUIDS)}


def test_frame_size_and_frames_are_found_without_superblocks(store, target):
    overwrite(store, 0, bytes(8192))
    report = repair(store, target)
    assert (report.page_size, report.saved, report.end_known) == (PAGE, 6, False)
    assert contents(target) == NOW


def test_holes_are_not_read(store, target, monkeypatch):
    """A ruined superblock leaves the whole file to be searched, and a sparse one may claim any length."""
    overwrite(store, 0, bytes(8192))
    os.truncate(store, 1 << 30)
    reads, real = [], Source.read
    monkeypatch.setattr(Source, "read", lambda *args: reads.append(args[1]) or real(*args))
    report = repair(store, target)
    assert (report.saved, report.complete) == (6, False)
    assert len(reads) < 50
    assert contents(target) == NOW


def test_a_frame_that_is_damaged_is_lost_by_name(store, target):
    damage_frame(store, 101)
    report = repair(store, target)
    (lost,) = report.lost
    assert (lost.guid, lost.why) == (GUIDS[1], "its checksum does not match")
    assert contents(target) == {guid: content for guid, content in NOW.items() if guid != GUIDS[1]}


def test_an_older_version_is_saved_only_if_asked_for(store, target):
    damage_frame(store, 101)
    report = repair(store, target, older=True)
    assert (report.older, report.lost, report.complete) == ((GUIDS[1],), (), False)
    assert contents(target) == {**NOW, GUIDS[1]: frame(1)}


def test_a_deleted_blob_is_not_an_older_version(store, target):
    with FileBlobStore.open(store) as opened:
        opened.commit(deletes=GUIDS[:1])
    report = repair(store, target, older=True)
    assert report.complete
    assert set(contents(target)) == set(GUIDS[1:])


def test_what_a_missing_group_may_have_changed_is_saved_and_named(store, target):
    raw = Path(store).read_bytes()
    last = max(at for at in range(0, len(raw), 4096) if raw[at : at + 5] == b"ublk\4")
    overwrite(store, last + 100, b"\xff")
    report = repair(store, target)
    assert report.gaps == ((3, 3),)
    assert set(report.unproved) == set(GUIDS)
    assert contents(target) == {guid: frame(n) for n, guid in enumerate(GUIDS)}


def test_it_refuses_a_store_that_a_writer_has_open(store, target):
    with FileBlobStore.open(store), pytest.raises(StoreLocked):
        repair(store, target, lock_timeout=0.05)
    assert not Path(target).exists()


def test_it_replaces_nothing(store, target):
    Path(target).write_text("mine")
    with pytest.raises(FileExistsError):
        repair(store, target)
    assert Path(target).read_text() == "mine"


def test_where_nothing_is_found_no_target_is_made(store_path, target):
    Path(store_path).write_bytes(bytes(1 << 20))
    with pytest.raises(StoreCorrupt, match="nothing can be saved"):
        repair(store_path, target)
    assert not Path(target).exists()


def test_of_several_stores_one_must_be_named(store, target):
    """The blocks of another store, each where it belongs in that one, are in free space of this one."""
    other = f"{store}.other"
    with FileBlobStore.open(other, page_size=PAGE) as opened:
        opened.commit([(guid, frame(50)) for guid in GUIDS])
    theirs, ours = Path(other).read_bytes(), bytearray(Path(store).read_bytes())
    ids = {theirs[16:32], bytes(ours[16:32])}
    mine = ours[16:32].hex()
    blocks = [at for at in range(0, len(theirs), 4096) if theirs[at : at + 4] == b"ublk"]
    ours[blocks[0] : blocks[0] + 4096] = theirs[blocks[0] : blocks[0] + 4096]
    ours[:8192] = bytes(8192)
    Path(store).write_bytes(ours)
    with pytest.raises(StoreCorrupt, match="--store-id") as caught:
        repair(store, target)
    assert all(store_id.hex() in str(caught.value) for store_id in ids)
    assert repair(store, target, store_id=bytes.fromhex(mine)).saved == 6
    assert contents(target) == NOW


@pytest.mark.parametrize("lost", [0, 4096], ids=["whole", "one superblock lost"])
def test_a_store_of_version_1_is_read_with_a_superblock(lost, store_path, target):
    Path(store_path).write_bytes(
        bytes(lost) + lzma.decompress((DATA / "golden-0.1.blobs.xz").read_bytes())[lost:]
    )
    report = repair(store_path, target)
    assert report.complete
    assert contents(target) == contents(store_path)


def test_a_store_of_version_1_without_superblocks_is_refused(store_path, target):
    """Its blocks do not name their store, so their checksums prove nothing."""
    Path(store_path).write_bytes(
        bytes(8192) + lzma.decompress((DATA / "golden-0.1.blobs.xz").read_bytes())[8192:]
    )
    with pytest.raises(StoreCorrupt, match="version 1"):
        repair(store_path, target)


def test_a_sector_of_the_next_group_proves_a_group_whose_frame_is_damaged(store_path, target):
    """Else the group would be left out as a whole, as if its writing had been cut off."""
    killed = f"{store_path}.killed"
    with FileBlobStore.open(store_path, page_size=PAGE) as opened:
        opened.commit([(guid, frame(n)) for n, guid in enumerate(GUIDS[:2])])
        opened.commit([(GUIDS[2], frame(2))])
        shutil.copyfile(store_path, killed)
    raw = Path(killed).read_bytes()
    last = max(at for at in range(0, len(raw), 4096) if raw[at : at + 5] == b"ublk\4")
    overwrite(killed, last + 100, b"\xff")
    damage_frame(killed, 1)
    report = repair(killed, target)
    assert [blob.guid for blob in report.lost] == [GUIDS[1]]
    assert contents(target) == {GUIDS[0]: frame(0)}


@pytest.mark.parametrize("lost", [0, 8192], ids=["whole", "without superblocks"])
def test_metadata_and_label_are_saved(lost, store_path, target):
    metas = {guid: bytes([n]) * (50 * n) for n, guid in enumerate(GUIDS)}
    with FileBlobStore.open(store_path, page_size=PAGE, label="Fotos") as opened:
        opened.commit([(guid, frame(n), metas[guid]) for n, guid in enumerate(GUIDS)])
    overwrite(store_path, 0, bytes(lost))
    repair(store_path, target)
    with FileBlobStore.open(target, read_only=True) as saved:
        assert saved.stats().label == ("" if lost else "Fotos")
        assert {guid: saved.stat_blob(guid).meta for guid in GUIDS} == metas
