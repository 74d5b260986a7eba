"""Row 21, real processes: readers beside a writer, either killed at any moment, and none sees a mix of commits."""

from __future__ import annotations

import contextlib
import threading

import pytest

from behaviour import children
from behaviour.work import frame, guid, missing
from file_systems import ext4, xfs
from uringblob import AsyncFileBlobStore, BlobNotFound, FileBlobStore, StoreClosed, StoreLocked
from uringblob.cli.main import main
from uringblob.store.opening.view import View

pytestmark = pytest.mark.one_interpreter  # the locks are the kernel's

PAGE = 4096
KILLS = 2  #: each way, for each engine; the torture target has more


def writer(path, engine, first):
    return children.Child("behaviour.child_readers:write", str(path), engine, first)


def reader(path, engine, *, moves):
    return children.Child("behaviour.child_readers:read", str(path), engine, moves)


def kill_both_ways(path, engine, kills):
    """Kill readers and writers in turn; return how many looks the readers took that were not killed."""
    with contextlib.ExitStack() as stack:
        writing = stack.enter_context(writer(path, engine, 1))
        durable = writing.hear()
        still = stack.enter_context(reader(path, engine, moves=False))
        moving = stack.enter_context(reader(path, engine, moves=True))
        stood = still.hear()
        assert stood >= durable
        assert moving.hear() >= durable
        for _ in range(kills):
            with reader(path, engine, moves=True) as doomed:
                assert doomed.hear() >= durable
                durable = writing.hear()
                doomed.kill()
            durable = writing.hear()
            moving.say("seen")
            assert moving.hear() >= durable, "a refresh misses what was durable before it"
            writing.kill()
            durable = max([durable, *writing.rest()])
            moving.say("seen")
            assert moving.hear() >= durable, "a reader alone misses what was durable"
            writing = stack.enter_context(writer(path, engine, durable + 10_000))
            durable = writing.hear()
            still.say("seen")
            assert still.hear() == stood, "a reader that does not refresh has moved"
        looks = 0
        for child in (still, moving):
            child.say("end")
            looks += child.result()[0]
        writing.kill()
    with FileBlobStore.open(path, engine=engine) as store:
        assert store.verify().ok
    return looks


def test_killed_both_ways(store_path, engine, count_row):
    looks = kill_both_ways(store_path, engine, KILLS)
    assert looks
    count_row(21, **{"kills of readers and writers": 2 * KILLS, "looks": looks})


@pytest.mark.parametrize("place", [lambda path: ext4(path, 64 << 20), xfs], ids=["ext4", "xfs"])
def test_the_same_on_other_file_systems(needs_root, disk_dir, place, count_row):
    with place(disk_dir / "place") as directory:
        count_row(
            21, looks=kill_both_ways(directory / "store", "auto", 1), **{"kills of readers and writers": 2}
        )


# --- one process is enough ---------------------------------------------------------------------


async def test_a_reader_sees_a_durable_state_that_stays_until_it_is_refreshed(store_path, engine):
    async with AsyncFileBlobStore.open(store_path, engine=engine, page_size=PAGE) as writer:
        await writer.commit([(guid(n), frame(n, PAGE)) for n in range(4)])
        async with AsyncFileBlobStore.open(store_path, engine=engine, read_only=True) as reader:
            await writer.commit([(guid(n), frame(n, PAGE, 1)) for n in range(4)])
            await writer.commit([(guid(5), frame(5, PAGE))], deletes=[guid(0)])
            await writer.write_blob(guid(6), frame(6, PAGE))  # visible there, and not durable
            assert not await missing(reader, range(4))
            assert len(await reader.list_blobs()) == 4
            assert await reader.refresh()
            assert not await missing(reader, range(1, 4), 1)
            assert not await reader.has_blob(guid(0))
            assert not await missing(reader, [5])
            assert not await reader.has_blob(guid(6))
            assert not await reader.refresh()
            await writer.flush()
            assert await reader.refresh()
            assert await reader.has_blob(guid(6))
            assert (await reader.verify()).ok
        assert not await writer.refresh()


async def test_what_an_older_reader_reads_is_kept_and_used_again_when_it_moves(store_path, engine):
    async with AsyncFileBlobStore.open(store_path, engine=engine, page_size=PAGE) as writer:
        await writer.commit([(guid(1), frame(1, PAGE))])
        async with AsyncFileBlobStore.open(store_path, engine=engine, read_only=True) as reader:
            for version in range(1, 12):
                await writer.commit([(guid(1), frame(1, PAGE, version))])
            stats = writer.stats()
            assert stats.slots_kept == 3, "what it shows, and two that were named before the writer met it"
            assert stats.kept_bytes == 3 * PAGE
            assert [(one.seq, len(one.pids)) for one in stats.readers] == [(2, 1)]
            assert not await missing(reader, [1])
            assert await reader.refresh()
            assert not await missing(reader, [1], 11)
            await writer.commit([(guid(1), frame(1, PAGE, 12))])
            assert writer.stats().slots_kept == 0
        assert writer.stats().readers == ()


async def test_a_refresh_that_meets_a_writer_with_nothing_new_leaves_the_reader_registered(
    store_path, engine, monkeypatch
):
    """The writer opens while the reader registers; the reader then let go of the state that it shows."""
    async with AsyncFileBlobStore.open(store_path, engine=engine, page_size=PAGE) as writer:
        await writer.commit([(guid(1), frame(1, PAGE))])
    async with AsyncFileBlobStore.open(store_path, engine=engine, read_only=True) as reader:
        real, opened = View._register_at, []

        def register_at(self, seq):
            real(self, seq)
            if not opened:
                opened.append(FileBlobStore.open(store_path, engine=engine))

        monkeypatch.setattr(View, "_register_at", register_at)
        moved = await reader.refresh()
        with opened[0] as again:
            assert not moved
            assert [one.seq for one in again.stats().readers] == [reader._core.view.seq]


async def test_a_snapshot_of_a_reader_keeps_what_it_shows(store_path, engine):
    async with AsyncFileBlobStore.open(store_path, engine=engine, page_size=PAGE) as writer:
        await writer.commit([(guid(1), frame(1, PAGE))])
        async with AsyncFileBlobStore.open(store_path, engine=engine, read_only=True) as reader:
            async with await reader.snapshot() as snapshot:
                for version in range(1, 12):
                    await writer.commit([(guid(1), frame(1, PAGE, version))])
                assert await reader.refresh()
                for version in range(12, 24):
                    await writer.commit([(guid(1), frame(1, PAGE, version))])
                assert not await missing(snapshot, [1])
                assert not await missing(reader, [1], 11)
                assert [one.seq for one in writer.stats().readers] == [2, 13]
            assert [one.seq for one in writer.stats().readers] == [13]


async def test_a_snapshot_that_ends_in_the_middle_of_a_refresh_lets_go_of_no_state_that_is_shown(
    store_path, engine, monkeypatch
):
    async with AsyncFileBlobStore.open(store_path, engine=engine, page_size=PAGE) as writer:
        await writer.commit([(guid(1), frame(1, PAGE))])
        async with AsyncFileBlobStore.open(store_path, engine=engine, read_only=True) as reader:
            snapshot, real, held = await reader.snapshot(), View._take_slots, []

            async def take_slots(self, changes):
                await real(self, changes)
                await self.core.end_snapshot(snapshot._moment)
                held.extend(one.seq for one in writer.stats().readers)

            await writer.commit([(guid(1), frame(1, PAGE, 1))])
            assert await reader.refresh()
            await writer.commit([(guid(1), frame(1, PAGE, 2))])
            monkeypatch.setattr(View, "_take_slots", take_slots)
            assert await reader.refresh()
            snapshot._closed = True
            assert 3 in held, "the state that is shown until the refresh is over"
            assert [one.seq for one in writer.stats().readers] == [4]


async def test_a_writer_that_opens_beside_an_older_reader_reuses_nothing_of_it(store_path, engine):
    writer = await AsyncFileBlobStore.open(store_path, engine=engine, page_size=PAGE)
    await writer.commit([(guid(n), frame(n, PAGE)) for n in range(8)])
    reader = await AsyncFileBlobStore.open(store_path, engine=engine, read_only=True)
    await writer.commit([(guid(n), frame(n, PAGE, 1)) for n in range(8)])
    await (
        writer._core.maintenance.start_compaction()
    )  # which slots the reader needs is not in the log any more
    await writer.aclose()
    async with AsyncFileBlobStore.open(store_path, engine=engine, lock_timeout=0) as writer:
        for version in range(2, 6):
            await writer.commit([(guid(n), frame(n, PAGE, version)) for n in range(8)])
        assert not await missing(reader, range(8))
        kept = writer.stats().slots_kept
        assert kept
        await reader.aclose()
        await writer.commit([(guid(0), frame(0, PAGE, 6))])
        assert writer.stats().slots_kept == 0


async def test_a_file_that_grows_and_a_log_that_is_replaced_under_a_reader(store_path, engine, monkeypatch):
    monkeypatch.setattr("uringblob.tuning.COMPACTION_BLOCKS_MIN", 8)
    async with AsyncFileBlobStore.open(store_path, engine=engine, page_size=PAGE) as writer:
        await writer.commit([(guid(0), frame(0, PAGE))])
        async with AsyncFileBlobStore.open(store_path, engine=engine, read_only=True) as reader:
            for step in range(1, 9):
                for number in range(120 * (step - 1), 120 * step, 20):
                    await writer.commit([(guid(n), frame(n, PAGE, 1)) for n in range(number, number + 20)])
                assert await reader.refresh()
                assert not await missing(reader, range(0, 120 * step, 7), 1)
            assert writer.stats().compactions
            assert (await reader.verify()).ok


@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
async def test_who_follows_misses_nothing(store_path, engine, sync):
    async with AsyncFileBlobStore.open(store_path, engine=engine, page_size=PAGE) as writer:
        await writer.commit([(guid(0), frame(0, PAGE))])
        if sync:
            with FileBlobStore.open(store_path, engine=engine, read_only=True) as reader:
                following = reader.follow()
                await writer.commit([(guid(1), frame(1, PAGE))], deletes=[guid(0)])
                changes = next(following)
                assert (changes.seq, changes.written, changes.deleted) == (3, (guid(1),), (guid(0),))
                assert iter(following) is following
            with pytest.raises(StoreClosed):
                next(following)
            return
        async with AsyncFileBlobStore.open(store_path, engine=engine, read_only=True) as reader:
            first, second = reader.follow(), reader.follow()
            await writer.commit([(guid(1), frame(1, PAGE))], deletes=[guid(0)])
            assert await reader.refresh()
            await writer.commit([(guid(1), frame(1, PAGE, 1)), (guid(2), frame(2, PAGE))])
            for following in (first, second):
                changes = await anext(following)
                assert changes.seq == 4
                assert set(changes.written) == {guid(1), guid(2)}
                assert changes.deleted == (guid(0),)
        with pytest.raises(RuntimeError, match="read_only"):
            writer.follow()


async def test_a_kept_slot_is_used_again_where_the_disk_is_full_and_its_reader_has_died(store_path, engine):
    async with AsyncFileBlobStore.open(store_path, engine=engine, page_size=PAGE) as writer:
        await writer.commit([(guid(n), frame(n, PAGE)) for n in range(20)])
        reader = await AsyncFileBlobStore.open(store_path, engine=engine, read_only=True)
        await writer.set_max_bytes(writer.stats().file_bytes + 60 * PAGE)
        refused = None
        for version in range(1, 200):
            try:
                await writer.commit([(guid(n), frame(n, PAGE, version)) for n in range(20)])
            except OSError as error:
                refused = error
                break
        assert "readers in other processes" in str(refused)
        assert not await missing(reader, range(20))
        await reader.aclose()
        await writer.commit([(guid(n), frame(n, PAGE, 500)) for n in range(20)])
        assert not await missing(writer, range(20), 500)


def test_threads_read_while_their_store_is_refreshed(store_path, engine):
    """A sync store's callers read in their own threads; each frame is one that was committed, and whole."""
    wrong, over = [], threading.Event()

    def look(store):
        room = bytearray(PAGE)
        while not over.is_set():
            try:
                store.read_blob(guid(1), room)
                version = int.from_bytes(room[16:24], "big")
                if room[16:] != version.to_bytes(8, "big") * ((PAGE - 16) // 8):
                    wrong.append("torn")
            except Exception as error:
                wrong.append(error)

    def stamped(version):
        return bytes(16) + version.to_bytes(8, "big") * ((PAGE - 16) // 8)

    with FileBlobStore.open(store_path, engine=engine, page_size=PAGE) as writer:
        writer.commit([(guid(1), stamped(0))])
        with FileBlobStore.open(store_path, engine=engine, read_only=True) as reader:
            threads = [threading.Thread(target=look, args=(reader,)) for _ in range(2)]
            for thread in threads:
                thread.start()
            for version in range(1, 150):
                writer.commit([(guid(1), stamped(version))])
                assert reader.refresh()
            over.set()
            for thread in threads:
                thread.join()
    assert not wrong


# --- commands beside a running service ---------------------------------------------------------

COMMANDS = {
    "info": ["info"],
    "ls": ["ls", "--long"],
    "get": ["get", str(guid(0)), "{out}"],
    "verify": ["verify"],
    "backup": ["backup", "{out}"],
    "export": ["export", "{out}"],
}


def test_commands_beside_a_running_writer(store_path, tmp_path, capfd):
    """The writer is a process of its own; the commands find it in the middle of its commits."""
    with writer(store_path, "auto", 1) as writing:
        writing.hear()
        for name, (command, *rest) in COMMANDS.items():
            assert main([command, store_path, *(part.format(out=tmp_path / name) for part in rest)]) == 0, (
                capfd.readouterr().err
            )
        assert main(["diff", store_path, str(tmp_path / "backup")]) in (0, 1)
        assert main(["repair", "--lock-timeout", "0", store_path, str(tmp_path / "new")]) == 3
        assert "is locked by another opener" in capfd.readouterr().err
        writing.hear()
        writing.kill()
    with FileBlobStore.open(tmp_path / "backup") as copy:
        assert copy.verify().ok


async def test_a_reader_waits_for_a_writer_that_opens(store_path, engine, monkeypatch):
    """Nothing is announced yet, and the file is locked."""
    monkeypatch.setattr("uringblob.store.range_locks.RangeLocks.announce", lambda *_: None)
    async with AsyncFileBlobStore.open(store_path, engine=engine, page_size=PAGE):
        with pytest.raises(StoreLocked):
            await AsyncFileBlobStore.open(store_path, engine=engine, read_only=True, lock_timeout=0.05)


async def test_without_such_locks_a_reader_keeps_writers_out(store_path, engine, monkeypatch):
    monkeypatch.setattr("uringblob.store.range_locks._GET", None)
    async with AsyncFileBlobStore.open(store_path, engine=engine, page_size=PAGE) as writer:
        await writer.commit([(guid(1), frame(1, PAGE))])
        await writer.commit([(guid(1), frame(1, PAGE, 1))])
        await writer.commit([(guid(1), frame(1, PAGE, 2))])
        with pytest.raises(StoreLocked):
            await AsyncFileBlobStore.open(store_path, engine=engine, read_only=True, lock_timeout=0)
    async with AsyncFileBlobStore.open(store_path, engine=engine, read_only=True) as reader:
        assert not await reader.refresh()
        assert not await missing(reader, [1], 2)
        with pytest.raises(BlobNotFound):
            await reader.read_blob(guid(2), bytearray(PAGE))
        with pytest.raises(StoreLocked):
            await AsyncFileBlobStore.open(store_path, engine=engine, lock_timeout=0)
