"""backup, restore, diff, copy, export, import: what they make, what they refuse, and what they say."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from uringblob import INCOMPLETE, BlobGuid, FileBlobStore
from uringblob.api import backup
from uringblob.cli import directory

PAGE = 4096


@pytest.fixture
def copy_path(store):
    return store + ".copy"


@pytest.fixture
def exported(store):
    return store + ".exported"


def frames_of(path):
    room, found = bytearray(PAGE), {}
    with FileBlobStore.open(path, read_only=True) as opened:
        for guid in opened.list_blobs():
            opened.read_blob(guid, room)
            found[guid] = bytes(room)
    return found


def change(path, guid, content):
    with FileBlobStore.open(path) as opened:
        opened.commit([(guid, content * PAGE)])


def rot(path, content):
    """Flip a bit of the frame that holds ``content`` all over."""
    data = bytearray(Path(path).read_bytes())
    at = data.index(content * PAGE)
    data[at] ^= 1
    with open(path, "r+b") as file:
        file.write(data)


def interrupt(run, monkeypatch, *argv):
    """Run a command that stops after its first frame."""
    with monkeypatch.context() as patch:
        patch.setattr(backup, "_STEP_BYTES", PAGE)
        copy = backup._Backup._copy

        async def once(self, names, frames):
            if self._copied:
                raise KeyboardInterrupt
            await copy(self, names, frames)

        patch.setattr(backup._Backup, "_copy", once)
        assert run(*argv).code == 130


# ---- backup and restore ----------------------------------------------------------------------------


def test_backup_copies_and_then_what_is_new(run, store, guids, copy_path):
    result = run("backup", store, copy_path)
    assert result.code == 0
    assert result.out.decode() == "3 blobs copied, 0 there already, 0 deleted (12 KiB of frames)\n"
    assert frames_of(copy_path) == frames_of(store)
    change(store, guids[1], b"x")
    value = json.loads(run("backup", store, copy_path, "--json").out)
    assert value == {
        "ok": True,
        "target": copy_path,
        "copied": 1,
        "skipped": 2,
        "deleted": 0,
        "bytes": PAGE,
        "bad": [],
    }


def test_an_interrupted_backup_goes_on(run, store, guids, copy_path, monkeypatch):
    interrupt(run, monkeypatch, "backup", store, copy_path)
    assert b"incomplete backup" in run("info", copy_path).out
    refused = run("restore", copy_path, store + ".new")
    assert refused.code == 1
    assert f"uringblob rm {copy_path} {INCOMPLETE}" in refused.err
    assert not os.path.exists(store + ".new")
    assert b"2 blobs copied, 1 there already" in run("backup", store, copy_path).out
    assert run("diff", store, copy_path).code == 0


def test_a_bad_blob_is_named_and_the_others_are_copied(run, store, guids, copy_path):
    rot(store, b"\x01")
    result = run("backup", store, copy_path)
    assert result.code == 1
    assert f"{guids[1]} not copied" in result.out.decode()
    assert "run the command again" in result.out.decode()
    value = json.loads(run("backup", store, copy_path, "--json").out)
    assert (value["ok"], value["copied"], value["skipped"]) == (False, 0, 2)
    assert [bad["guid"] for bad in value["bad"]] == [str(guids[1])]
    change(store, guids[1], b"z")
    assert run("backup", store, copy_path).code == 0


def test_backup_does_not_delete_another_stores_blobs(run, store, guids, copy_path):
    run("create", copy_path, "--page-size", PAGE)
    other = BlobGuid.random()
    change(copy_path, other, b"o")
    refused = run("backup", store, copy_path)
    assert refused.code == 2
    assert "is it a backup of another store?" in refused.err
    assert list(frames_of(copy_path)) == [other]
    assert run("backup", store, copy_path, "--replace").code == 0
    assert frames_of(copy_path) == frames_of(store)


def test_restore_makes_a_store_and_replaces_one_only_if_it_is_asked_to(run, store, guids, copy_path):
    run("backup", store, copy_path)
    before = frames_of(store)
    change(store, BlobGuid.random(), b"n")
    refused = run("restore", copy_path, store)
    assert refused.code == 2
    assert "--replace" in refused.err
    assert len(frames_of(store)) == 4
    assert run("restore", copy_path, store, "--replace").code == 0
    assert frames_of(store) == before
    assert run("restore", copy_path, store + ".new").code == 0
    assert frames_of(store + ".new") == before


def test_an_empty_store_may_be_restored_into(run, store, guids, copy_path):
    run("create", copy_path, "--page-size", PAGE)
    assert run("restore", store, copy_path).code == 0
    assert frames_of(copy_path) == frames_of(store)


def test_an_interrupted_restore_goes_on(run, store, guids, copy_path, monkeypatch):
    interrupt(run, monkeypatch, "restore", store, copy_path)
    assert b"2 blobs copied, 1 there already" in run("restore", store, copy_path).out


def test_restore_leaves_a_damaged_file_alone(run, store, guids, copy_path):
    with open(copy_path, "wb") as file:
        file.write(b"not a store")
    assert run("restore", store, copy_path, "--replace").code == 3
    assert Path(copy_path).read_bytes() == b"not a store"


def test_a_store_is_not_copied_into_itself(run, store, guids):
    for command in ("backup", "restore"):
        result = run(command, store, store, "--replace")
        assert result.code == 2
        assert "into itself" in result.err


# ---- diff ------------------------------------------------------------------------------------------


def test_diff_is_silent_about_equal_ones(run, store, guids, copy_path):
    run("backup", store, copy_path)
    result = run("diff", store, copy_path)
    assert (result.code, result.out) == (0, b"")
    assert json.loads(run("diff", store, copy_path, "--json").out)["equal"] is True


def test_diff_marks_what_is_not_shared(run, store, guids, copy_path):
    run("backup", store, copy_path)
    run("rm", copy_path, guids[0])
    change(copy_path, guids[1], b"x")
    change(copy_path, added := BlobGuid.random(), b"y")
    result = run("diff", store, copy_path)
    assert result.code == 1
    assert result.out.decode().splitlines() == [f"- {guids[0]}", f"+ {added}", f"! {guids[1]}"]
    assert json.loads(run("diff", store, copy_path, "--json").out) == {
        "equal": False,
        "page_sizes": [PAGE, PAGE],
        "only_in_a": [str(guids[0])],
        "only_in_b": [str(added)],
        "different": [str(guids[1])],
    }


def test_frames_of_other_sizes_are_different(run, store, guids, copy_path):
    run("copy", store, copy_path, "--page-size", "8k", "--pad")
    result = run("diff", store, copy_path)
    assert result.code == 1
    assert result.out.decode().splitlines()[0] == "frames of 4096 bytes in A, of 8192 in B"
    assert len(result.out.splitlines()) == 4


def test_diff_with_nothing_is_trouble(run, store, guids, copy_path):
    assert run("diff", store, copy_path).code == 3


# ---- copy ------------------------------------------------------------------------------------------


def test_copy_makes_a_store_and_replaces_none(run, store, guids, copy_path):
    assert run("copy", store, copy_path).code == 0
    assert frames_of(copy_path) == frames_of(store)
    refused = run("copy", store, copy_path)
    assert refused.code == 2
    assert "uringblob backup" in refused.err


def test_a_compact_copy_says_what_it_saves(run, store, guids, copy_path):
    with FileBlobStore.open(store) as opened:
        names = [BlobGuid.random() for _ in range(600)]
        opened.commit([(name, bytes(PAGE)) for name in names])
        opened.commit(deletes=names)
    result = run("copy", store, copy_path, "--compact")
    assert result.code == 0
    assert f"{copy_path} has " in result.out.decode()
    assert f", {store} has " in result.out.decode()
    assert os.stat(copy_path).st_size < os.stat(store).st_size
    assert frames_of(copy_path) == frames_of(store)
    with FileBlobStore.open(copy_path) as copy:
        assert copy.stats().slots_free == 0, "there is room to grow into"


def test_vacuum_shortens_the_file_and_says_by_how_much(run, store, guids):
    with FileBlobStore.open(store) as opened:
        names = [BlobGuid.random() for _ in range(600)]
        opened.commit([(name, bytes(PAGE)) for name in names])
        opened.commit(deletes=names)
    before, contents = os.stat(store).st_size, frames_of(store)
    result = run("vacuum", store, "--max-time", "60", "--json")
    assert result.code == 0
    stats = json.loads(result.out)
    assert stats == {"moved": stats["moved"], "bytes_freed": stats["bytes_freed"], "done": True, "bad": []}
    assert before - os.stat(store).st_size == stats["bytes_freed"] > 0
    assert frames_of(store) == contents
    assert b"0 frames moved, 0 bytes given back" in run("vacuum", store).out


def test_copy_pads_only_if_it_is_asked_to(run, store, guids, copy_path):
    refused = run("copy", store, copy_path, "--page-size", "8k")
    assert refused.code == 2
    assert "--pad fills" in refused.err
    assert not os.path.exists(copy_path)
    assert run("copy", store, copy_path, "--page-size", "8k", "--pad").code == 0
    room = bytearray(2 * PAGE)
    with FileBlobStore.open(copy_path) as opened:
        assert opened.verify().ok
        opened.read_blob(guids[2], room)
    assert room == bytes([2]) * PAGE + bytes(PAGE)


def test_copy_divides_no_frame(run, store, guids, copy_path):
    run("copy", store, copy_path, "--page-size", "8k", "--pad")
    refused = run("copy", copy_path, store + ".small", "--page-size", "4k")
    assert refused.code == 2
    assert "frames of 8192 bytes" in refused.err


def test_an_empty_store_takes_any_frame_size(run, store, copy_path):
    assert run("copy", store, copy_path, "--page-size", "64k").code == 0
    with FileBlobStore.open(copy_path) as opened:
        assert opened.page_size == 65536


# ---- export and import -----------------------------------------------------------------------------


def test_export_writes_a_file_a_blob_and_a_manifest(run, store, guids, exported):
    assert run("export", store, exported).code == 0
    assert set(os.listdir(exported)) == {*map(str, guids), "manifest.json"}
    assert Path(exported, str(guids[1])).read_bytes() == bytes([1]) * PAGE
    assert stat.S_IMODE(os.stat(exported).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(os.path.join(exported, str(guids[1]))).st_mode) == 0o600
    with open(os.path.join(exported, "manifest.json")) as file:
        manifest = json.load(file)
    with FileBlobStore.open(store) as opened:
        checksums = {str(guid): f"{opened.checksum(guid):016x}" for guid in guids}
    assert manifest == {"format": "uringblob export 1", "page_size": PAGE, "xxh3_64": checksums, "meta": {}}


def test_what_is_exported_is_on_the_disk_in_order(run, store, guids, exported, monkeypatch):
    """Each file, then the directory; the manifest and the directory before the file that says incomplete goes."""
    events = []

    def fsync(descriptor, sync=os.fsync):
        events.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")).split(" ")[0])
        sync(descriptor)

    def unlink(path, remove=os.unlink):
        events.append(f"unlink {os.path.basename(path)}")
        remove(path)

    with monkeypatch.context() as patch:
        patch.setattr(directory.os, "fsync", fsync)
        patch.setattr(directory.os, "unlink", unlink)
        run("export", store, exported)
    home, parent = os.path.basename(exported), os.path.basename(os.path.dirname(exported))
    names = sorted(map(str, guids))
    assert events[:3] == [parent, str(INCOMPLETE), home]
    assert sorted(events[3:6]) == names
    manifest = events[7]
    assert manifest == "manifest.json" or manifest.startswith("#"), "a file that has no name yet"
    assert [*events[6:7], *events[8:]] == [home, home, f"unlink {INCOMPLETE}", home]


def test_an_export_is_brought_up_to_date(run, store, guids, exported):
    run("export", store, exported)
    change(store, guids[1], b"x")
    run("rm", store, guids[0])
    assert b"1 blobs copied, 1 there already, 1 deleted" in run("export", store, exported).out
    assert set(os.listdir(exported)) == {*map(str, guids[1:]), "manifest.json"}
    with open(os.path.join(exported, str(guids[2])), "r+b") as file:
        file.truncate(5)
    assert b"1 blobs copied" in run("export", store, exported).out, "a damaged file is written again"
    run("import", exported, store + ".new")
    assert run("diff", store, store + ".new").code == 0


def test_an_interrupted_export_is_not_imported_and_goes_on(run, store, guids, exported, monkeypatch):
    interrupt(run, monkeypatch, "export", store, exported)
    refused = run("import", exported, store + ".new")
    assert refused.code == 1
    assert "export' again" in refused.err
    assert b"2 blobs copied, 1 there already" in run("export", store, exported).out
    assert run("import", exported, store + ".new").code == 0


def test_metadata_goes_with_its_blob(run, store, guids, exported, copy_path):
    with FileBlobStore.open(store) as opened:
        opened.write_blob(guids[1], bytes([1]) * PAGE, b"of one")
    run("export", store, exported)
    run("import", exported, store + ".imported")
    run("backup", store, copy_path)
    run("restore", copy_path, store + ".restored")
    run("copy", store, store + ".larger", "--page-size", "8k", "--pad")
    for path in (store + ".imported", copy_path, store + ".restored", store + ".larger"):
        with FileBlobStore.open(path) as opened:
            assert [opened.stat_blob(guid).meta for guid in guids] == [b"", b"of one", b""]
    with FileBlobStore.open(store) as opened:
        opened.write_blob(guids[1], bytes([1]) * PAGE, b"of two")
    for again in (("export", store, exported), ("backup", store, copy_path)):
        assert b"1 blobs copied, 2 there already" in run(*again).out


def test_export_touches_no_other_directory(run, store, guids, tmp_path):
    (tmp_path / "mine").write_bytes(b"mine")
    refused = run("export", store, tmp_path)
    assert refused.code == 2
    assert "not empty" in refused.err
    assert os.listdir(tmp_path) == ["mine"]


@pytest.mark.parametrize("how", ["changed", "short", "long", "missing"])
def test_import_names_what_differs_from_the_manifest(run, store, guids, exported, how):
    run("export", store, exported)
    path = os.path.join(exported, str(guids[1]))
    if how == "missing":
        os.unlink(path)
    else:
        with open(path, "r+b") as file:
            file.write(b"?")
            if how != "changed":
                file.truncate(PAGE - 1 if how == "short" else PAGE + 1)
    result = run("import", exported, store + ".new", "--json")
    assert result.code == 1
    (bad,) = json.loads(result.out)["bad"]
    assert bad["guid"] == str(guids[1])
    assert path in bad["error"]
    assert set(frames_of(store + ".new")) == {guids[0], guids[2], INCOMPLETE}
    run("export", store, exported)
    assert run("import", exported, store + ".new").code == 0
    assert run("diff", store, store + ".new").code == 0


@pytest.mark.parametrize(
    "manifest", ["", "[]", "{}", '{"format": "other"}', '{"format": "uringblob export 1"}']
)
def test_import_refuses_another_manifest(run, store, guids, exported, manifest):
    run("export", store, exported)
    with open(os.path.join(exported, "manifest.json"), "w") as file:
        file.write(manifest)
    refused = run("import", exported, store + ".new")
    assert refused.code == 3
    assert "manifest.json is no manifest" in refused.err
    assert not os.path.exists(store + ".new")


def test_import_replaces_a_store_only_if_it_is_asked_to(run, store, guids, exported):
    run("export", store, exported)
    before = frames_of(store)
    change(store, guids[0], b"x")
    assert run("import", exported, store).code == 2
    assert run("import", exported, store, "--replace").code == 0
    assert frames_of(store) == before


def test_a_rate_is_kept(run, store, guids, copy_path, monkeypatch):
    slept = []
    monkeypatch.setattr("uringblob.api.sync_store.time.sleep", slept.append)
    assert run("backup", store, copy_path, "--rate", "4k").code == 0
    assert len(slept) == 2, "the first frame is copied at once"
