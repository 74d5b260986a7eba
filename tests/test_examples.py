"""The smaller examples do what they say, in words and in numbers.  (archive and blob_service: theirs.)"""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from uringblob import BlobGuid, BlobStoreIOError, MemoryBlobStore
from uringblob.testing import CHECKS, check_blob_store

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

import audit  # noqa: E402 - needs the path above
import buffer_manager  # noqa: E402
import raw_ring  # noqa: E402
import scale_out  # noqa: E402
from buffer_manager import BufferManager, NoFreePage, guid_of  # noqa: E402
from custom_store import DirectoryBlobStore  # noqa: E402

pytestmark = pytest.mark.one_interpreter  # plain use of the library, which the others' suites cover

PAGE = 4096


def run(name, *arguments):
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_example_is_run_by_a_test():
    tested = {
        "archive.py",
        "audit.py",
        "buffer_manager.py",
        "custom_store.py",
        "live_backup.py",
        "scale_out.py",
        "raw_ring.py",
    }
    assert {path.name for path in EXAMPLES.glob("*.py")} == tested


# ---- the audit ---------------------------------------------------------------------------------


def test_the_audit_as_a_command(store_path):
    printed = run("audit.py", store_path, "--audits", "20")
    assert "read from snapshots: 20 of 20 sums are right" in printed
    assert ", and 0 now" in printed


def test_an_audit_of_any_store():
    found = audit.audit(MemoryBlobStore(PAGE), 20)
    assert found.right_in_snapshots == found.audits == 20


# ---- the buffer manager ------------------------------------------------------------------------


def test_the_buffer_manager_as_a_command(store_path):
    printed = run("buffer_manager.py", store_path, "--words", "1000", "--page-size", "4096")
    assert "all 256 pages hold what was counted" in printed
    assert int(printed.split("evictions")[1].split()[0]) > 0


def test_what_is_used_often_stays(store_path):
    manager = BufferManager(MemoryBlobStore(page_size=PAGE), pages_max=4)
    for number in range(50):
        with manager.pin(guid_of(1)), manager.pin(guid_of(100 + number)):
            pass
    assert manager.counts.hits == 49  # page 1 was read in once
    assert manager.counts.evictions == 51 - 4


def test_pinned_pages_stay_and_are_an_error_when_nothing_else_is_there():
    manager = BufferManager(MemoryBlobStore(page_size=PAGE), pages_max=2)
    with manager.pin(guid_of(1), change=True) as one, manager.pin(guid_of(2)):
        one[:3] = b"one"
        with pytest.raises(NoFreePage), manager.pin(guid_of(3)):
            pass
        assert one[:3] == b"one"
    with manager.pin(guid_of(3)), manager.pin(guid_of(4)), pytest.raises(NoFreePage):
        manager.pin(guid_of(5)).__enter__()
    with manager.pin(guid_of(1)) as again:
        assert bytes(again[:3]) == b"one"  # it was written back when its frame was taken
    assert manager.counts.write_backs == 1


def test_a_checkpoint_writes_each_dirty_page_once_and_is_durable(store_path):
    store = buffer_manager.FileBlobStore.open(store_path, page_size=PAGE, buffers=80)
    with store:
        manager = BufferManager(store, pages_max=70)
        for number in range(70):
            with manager.pin(guid_of(number), change=True) as view:
                view[:] = bytes([number]) * PAGE
        del view
        before = store.stats()
        manager.checkpoint()
        after = store.stats()
        assert manager.counts.checkpoint_batches == 3  # of 32, 32 and 6
        assert after.bytes_written - before.bytes_written >= 70 * PAGE
        assert not store.needs_flush()
        manager.checkpoint()
        assert store.stats().writes == after.writes
        manager.close()


def test_a_failed_checkpoint_leaves_the_pages_dirty(monkeypatch):
    store = MemoryBlobStore(page_size=PAGE)
    manager = BufferManager(store, pages_max=2)
    with manager.pin(guid_of(1), change=True) as view:
        view[:1] = b"x"
    del view

    def refuse(_writes):
        raise BlobStoreIOError(5, "no")

    monkeypatch.setattr(store, "write_blobs_with_data_sync", refuse)
    with pytest.raises(BlobStoreIOError):
        manager.checkpoint()
    monkeypatch.undo()
    manager.close()
    assert store.list_blobs() == [guid_of(1)]


def test_many_random_pins_against_a_dict(store_path):
    store = MemoryBlobStore(page_size=PAGE)
    seed = random.randrange(1 << 32)
    rng, model = random.Random(seed), {}
    manager = BufferManager(store, pages_max=5)
    for step in range(600):
        guid = guid_of(rng.randrange(12))
        with manager.pin(guid, change=step % 2 == 0) as view:
            assert bytes(view[:8]) == model.get(guid, bytes(8)), f"seed {seed}, step {step}"
            if step % 2 == 0:
                view[:8] = model[guid] = rng.randbytes(8)
        if step % 97 == 0:
            manager.checkpoint()
    manager.close()


# ---- the ring alone ----------------------------------------------------------------------------


def test_the_raw_ring_as_a_command(disk_dir, needs_uring, locked_memory):
    printed = run("raw_ring.py", str(disk_dir), "--frames", "40", "--frame-size", "4096", "--depth", "8")
    assert "81 operations" in printed  # 40 writes, a sync, 40 reads


async def test_it_enters_the_kernel_less_often_than_it_moves_frames(
    disk_dir, needs_uring, locked_memory, capsys
):
    path = str(disk_dir / "ring.bin")
    ring = await raw_ring.demonstrate(path, frames=64, frame_size=4096, depth=16)
    stats = ring.stats()
    assert stats.completed == 129
    assert stats.enters < stats.completed


# ---- a store of five methods -------------------------------------------------------------------


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_the_custom_store_keeps_the_contract(check, disk_dir):
    made = []

    def make_store():
        made.append(disk_dir / str(len(made)))
        made[-1].mkdir()
        return DirectoryBlobStore(str(made[-1]))

    check_blob_store(make_store, reopen=lambda: DirectoryBlobStore(str(made[-1])), checks=[check])


def test_the_custom_store_has_five_methods():
    public = {name for name in vars(DirectoryBlobStore) if not name.startswith("_")}
    assert public == {"read_blob", "write_blob", "delete_blob", "list_blobs", "flush", "page_size"}


def test_the_custom_store_finds_rot(disk_dir):
    store = DirectoryBlobStore(str(disk_dir))
    guid = BlobGuid.random()
    store.write_blob(guid, bytes(PAGE))
    file = disk_dir / guid.hex()
    file.write_bytes(b"x" + file.read_bytes()[1:])
    assert [bad for bad, _ in store.verify().bad] == [guid]
    file.write_bytes(b"short")
    assert not store.verify().ok


def test_the_custom_store_as_a_command():
    assert "checks passed" in run("custom_store.py")


# ---- a backup beside a writer -----------------------------------------------------------------------


def test_the_live_backup_as_a_command(disk_dir):
    printed = run("live_backup.py", str(disk_dir), "--blobs", "600")
    assert "restored and compared: equal, both times" in printed
    assert "beside a writer: 344 blobs copied, 256 there already, 0 deleted" in printed


class TestScale:
    def test_more_writers_commit_more_for_the_same_requests(self):
        one, four = (scale_out.simulate(shards, clients=256, commits=2) for shards in (1, 4))
        assert one.puts_a_commit == four.puts_a_commit == 1
        assert one.groups_a_commit < four.groups_a_commit < 0.1
        assert one.commits_a_second < scale_out.IN_FLIGHT / scale_out.put_s(scale_out.FRAME_BYTES)
        assert four.commits_a_second > 1.5 * one.commits_a_second, "simulated seconds: no machine is too slow"

    def test_the_page_has_what_it_prints(self):
        page = (EXAMPLES.parent / "docs" / "scale.md").read_text("utf-8")
        printed = run("scale_out.py", "--shards", "1")
        rows = [line.replace("1e+0", "10^") for line in printed.splitlines() if line.startswith("|")]
        assert len(rows) == 4 + 8 + 1 + 6
        missing = [row for row in rows if row not in page]
        assert not missing
