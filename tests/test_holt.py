"""The import of holt's directories.  The fixtures are written byte by byte from the format as holt states it."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path

import pytest

from uringblob import BlobCorrupt, BlobGuid, BlobStoreError, FileBlobStore, PageSizeMismatch, StoreCorrupt
from uringblob.cli.main import main
from uringblob.holt import import_holt, read_manifest

pytestmark = pytest.mark.one_interpreter

FRAME = 524288
A, B, C, D = (bytes([n]) * 16 for n in (1, 2, 3, 4))


def le(number: int, size: int) -> bytes:
    return number.to_bytes(size, "little")


def manifest(entries, *, magic=b"ARTSNMNF", version=6, count=None, zero=b"\0\0", next_slot=99) -> bytes:
    head = magic + le(version, 2) + le(len(entries) if count is None else count, 4) + zero + le(next_slot, 8)
    return head + b"".join(guid + le(slot, 8) for guid, slot in entries)


def record(kind, body, *, magic=b"MLG1", size=None, crc=None) -> bytes:
    head = magic + le(len(body) if size is None else size, 4) + le(kind, 1) + body
    return head + le(zlib.crc32(head) if crc is None else crc, 4)


def put(guid, slot) -> bytes:
    return record(1, guid + le(slot, 8))


def drop(guid) -> bytes:
    return record(2, guid)


def frame(slot: int) -> bytes:
    return bytes([100 + slot]) * FRAME


#: A moved from slot 0 to 3 and B was deleted after the snapshot; D came.
SNAPSHOT = [(A, 0), (B, 1), (C, 2)]
LOG = put(A, 3) + drop(B) + put(D, 1)
SLOTS = {A: 3, C: 2, D: 1}
SOUND = manifest(SNAPSHOT)


@pytest.fixture
def holt(disk_dir):
    """A directory of holt; call it with other files."""

    def write(binary=SOUND, log=LOG, slots=4, cut=0):
        path = disk_dir / "holt"
        path.mkdir(exist_ok=True)
        data = b"".join(map(frame, range(slots)))
        for name, content in (("manifest.bin", binary), ("manifest.log", log), ("blobs.dat", data)):
            if content is not None:
                (path / name).write_bytes(content)
        os.truncate(path / "blobs.dat", len(data) - cut)
        return str(path)

    return write


@pytest.fixture
def store(store_path):
    with FileBlobStore.open(store_path) as opened:
        yield opened


def contents(store) -> dict[bytes, bytes]:
    found = {}
    with store.alloc_blob_buf_uninit() as buf:
        for guid in store.list_blobs():
            store.read_blob(guid, buf)
            found[bytes(guid)] = bytes(buf.view)
    return found


def in_slots(slots) -> dict[bytes, bytes]:
    return {guid: frame(slot) for guid, slot in slots.items()}


def test_the_log_is_replayed_over_the_snapshot(holt, store):
    report = import_holt(holt(), store)
    assert (report.imported, report.skipped, report.ok, report.torn_bytes) == (3, 0, True, 0)
    assert contents(store) == in_slots(SLOTS)


def test_without_a_log_the_snapshot_is_all(holt, store):
    import_holt(holt(log=None), store)
    assert contents(store) == in_slots(dict(SNAPSHOT))


def test_the_directory_is_only_read(holt, store):
    path = Path(holt())

    def files():
        return {entry.name: (entry.stat().st_mtime_ns, entry.read_bytes()) for entry in path.iterdir()}

    before = files()
    import_holt(str(path), store)
    assert files() == before


@pytest.mark.parametrize("kept", range(1, len(put(D, 1))))
def test_an_incomplete_last_record_is_a_torn_tail(holt, kept):
    assert read_manifest(holt(log=put(A, 3) + put(D, 1)[:kept])) == ({A: 3, B: 1, C: 2}, kept)


@pytest.mark.parametrize(
    ("log", "what"),
    [
        (put(A, 3)[:-1] + b"?" + drop(B), "CRC-32"),
        (put(A, 3) + drop(B)[:-1] + b"?", "CRC-32"),
        (record(3, b"x" * 8) + drop(B), "type 3"),
        (record(1, A + le(3, 8), size=1 << 30) + drop(B), "1073741824 bytes, not 24"),
        (record(2, A + le(3, 8)), "24 bytes, not 16"),
        (record(2, B, magic=b"MLG2"), "MLG1"),
        (drop(B) + bytes(3), "MLG1"),
    ],
)
def test_a_damaged_log_is_refused_whole(holt, store, log, what):
    with pytest.raises(StoreCorrupt, match=what) as caught:
        import_holt(holt(log=log), store)
    assert "manifest.log" in str(caught.value)
    assert caught.value.offset is not None
    assert contents(store) == {}


@pytest.mark.parametrize("bit", range(len(LOG) * 8))
def test_no_flipped_bit_of_the_log_goes_unseen(holt, bit):
    log = bytearray(LOG)
    log[bit // 8] ^= 1 << bit % 8
    with pytest.raises(StoreCorrupt):
        read_manifest(holt(log=bytes(log)))


@pytest.mark.parametrize(
    ("binary", "what"),
    [
        (b"", "ARTSNMNF"),
        (manifest(SNAPSHOT, magic=b"ARTSNMNG"), "ARTSNMNF"),
        (manifest(SNAPSHOT)[:20], "ARTSNMNF"),
        (manifest(SNAPSHOT, version=7), "version is 7"),
        (manifest(SNAPSHOT, zero=b"\0\1"), "should be zero"),
        (manifest(SNAPSHOT, count=4), "4 entries take 120 bytes"),
        (manifest(SNAPSHOT) + b"?", "3 entries take 96 bytes"),
        (manifest([(A, 0), (A, 1)]), "a blob twice"),
    ],
)
def test_a_damaged_manifest_is_refused_whole(holt, store, binary, what):
    with pytest.raises(StoreCorrupt, match=what):
        import_holt(holt(binary=binary), store)
    assert contents(store) == {}


def test_two_blobs_in_one_slot_are_refused(holt, store):
    with pytest.raises(StoreCorrupt, match=f"{BlobGuid(C)} have the same slot, 0"):
        import_holt(holt(manifest([(A, 0), (C, 0)]), log=b""), store)


def test_a_slot_that_was_handed_on_is_no_duplicate(holt, store):
    import_holt(holt(log=put(A, 3) + put(D, 0)), store)
    assert contents(store) == in_slots({A: 3, B: 1, C: 2, D: 0})


@pytest.mark.parametrize("cut", [1, FRAME])
def test_a_short_blobs_file_loses_those_blobs_alone(holt, store, cut):
    report = import_holt(holt(cut=cut), store)
    ((guid, error),) = report.bad
    assert guid == A
    assert isinstance(error, BlobCorrupt)
    assert "slot 3 (offset 1572864)" in str(error)
    assert contents(store) == in_slots({C: 2, D: 1})


@pytest.mark.parametrize("missing", ["manifest.bin", "blobs.dat"])
def test_what_is_missing_is_named(holt, store, missing):
    path = holt()
    os.unlink(os.path.join(path, missing))
    with pytest.raises(FileNotFoundError, match=missing):
        import_holt(path, store)


def test_it_goes_on_where_it_was_interrupted(holt, store):
    many = [(bytes([n]) * 16, n) for n in range(40)]
    path = holt(manifest(many), log=b"", slots=40)

    class Interrupted(Exception):
        pass

    def stop(done, _total):
        if done == 35:
            raise Interrupted

    with pytest.raises(Interrupted):
        import_holt(path, store, stop)
    durable = len(store)
    assert 0 < durable < 40
    report = import_holt(path, store)
    assert (report.imported, report.skipped) == (40 - durable, durable)
    assert contents(store) == in_slots(dict(many))


def test_nothing_that_the_store_has_is_replaced(holt, store):
    store.commit([(A, frame(50)), (B, frame(51))])
    report = import_holt(holt(), store)
    assert [guid for guid, _ in report.bad] == [A]
    assert "has other bytes" in str(report.bad[0][1])
    assert contents(store) == {**in_slots({C: 2, D: 1}), A: frame(50), B: frame(51)}


def test_a_directory_that_changes_meanwhile_is_refused(holt, store):
    path = holt()

    def change(done, _total):
        if done == 1:
            with open(os.path.join(path, "manifest.log"), "ab") as log:
                log.write(drop(C))

    with pytest.raises(BlobStoreError, match="changed while it was read"):
        import_holt(path, store, change)


def test_what_cannot_be_read_back_is_bad(holt, store, monkeypatch):
    commit = store.commit

    def commit_and_rot(writes):
        commit(writes)
        with open(store.path, "r+b") as file:
            offset = file.read().index(frame(2))
            os.pwrite(file.fileno(), b"rot", offset)
            os.fsync(file.fileno())

    monkeypatch.setattr(store, "commit", commit_and_rot)
    report = import_holt(holt(), store)
    assert [guid for guid, _ in report.bad] == [C]


def test_frames_of_another_size_are_refused(holt, store_path):
    with FileBlobStore.open(store_path, page_size=4096) as small, pytest.raises(PageSizeMismatch):
        import_holt(holt(), small)


def test_the_command(holt, store_path, capsys):
    assert main(["import-holt", holt(), store_path, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["imported"] == 3
    assert main(["import-holt", holt(cut=1), f"{store_path}.2"]) == 1
    assert "bad: 01010101" in capsys.readouterr().out
    assert main(["import-holt", holt(binary=b""), f"{store_path}.3"]) == 3
    assert not os.path.exists(f"{store_path}.3")
