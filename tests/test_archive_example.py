"""The demo: what goes in comes out, and what differs is found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from uringblob import AsyncMemoryBlobStore

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "examples"))

from archiving import catalogue, compare, pack, progress, restore, tree  # noqa: E402 - needs the path above

pytestmark = pytest.mark.one_interpreter  # plain use of the library, which the others' suites cover


@pytest.fixture
def source(disk_dir):
    """A small tree with everything that is easily lost."""
    root = disk_dir / "source"
    (root / "empty directory").mkdir(parents=True)
    (root / "deep" / "er").mkdir(parents=True)
    (root / "empty file").touch()
    (root / "deep" / "small").write_bytes(b"x")
    (root / "deep" / "er" / "large").write_bytes(os.urandom(1_000_003))
    (root / "one frame").write_bytes(os.urandom(4096))
    for index in range(50):
        (root / f"many {index}").write_bytes(os.urandom(index * 37))
    (root / "script").write_bytes(b"#!/bin/sh\n")
    (root / "script").chmod(0o755)
    (root / "read only").write_bytes(b"r")
    (root / "read only").chmod(0o444)
    (root / "link").symlink_to("deep/small")
    (root / "dangling").symlink_to("nowhere")
    (root / "link to directory").symlink_to("deep")
    Path(os.fsdecode(os.fsencode(str(root)) + b"/not utf-8 \xff")).write_bytes(b"name")
    (root / "deep").chmod(0o555)
    yield root
    (root / "deep").chmod(0o755)


@pytest.fixture
def destination(disk_dir):
    (disk_dir / "restored").mkdir()
    yield disk_dir / "restored"
    if (disk_dir / "restored" / "deep").exists():
        (disk_dir / "restored" / "deep").chmod(0o755)


async def pack_into(store, source):
    return await pack.Packer(store, str(source), lambda count: None).pack(tree.scan(str(source)).entries)


async def restore_from(store, destination):
    await restore.Restorer(store, str(destination), lambda count: None).restore()


async def differences(source, destination):
    left, right = tree.scan(str(source)), tree.scan(str(destination))
    return await compare.differences(str(source), left, str(destination), right)


async def test_a_tree_comes_back_as_it_was(source, destination):
    async with AsyncMemoryBlobStore(page_size=4096) as store:
        assert await pack_into(store, source) > 2
        await restore_from(store, destination)
    assert await differences(source, destination) == []


async def test_a_second_archive_replaces_the_first_and_leaves_nothing_of_it(source, destination):
    async with AsyncMemoryBlobStore(page_size=65536) as store:
        await pack_into(store, source)
        first = set(await store.list_blobs())
        (source / "one frame").write_bytes(b"other contents")
        await pack_into(store, source)
        second = set(await store.list_blobs())
        assert first & second == {catalogue.ROOT_GUID}
        root = await catalogue.load_root(store)
        assert second == {catalogue.ROOT_GUID, *root.guids()}
        await restore_from(store, destination)
    assert await differences(source, destination) == []


async def test_other_blobs_of_the_store_are_left_alone(source):
    async with AsyncMemoryBlobStore(page_size=4096) as store:
        await store.write_blob(bytes(16), bytes(4096))
        await pack_into(store, source)
        await pack_into(store, source)
        assert await store.has_blob(bytes(16))


async def test_an_empty_tree(disk_dir, destination):
    (disk_dir / "nothing").mkdir()
    async with AsyncMemoryBlobStore(page_size=4096) as store:
        assert await pack_into(store, disk_dir / "nothing") == 1
        await restore_from(store, destination)
    assert await differences(disk_dir / "nothing", destination) == []


async def test_a_file_that_shrinks_meanwhile_is_an_error_and_no_archive_appears(source):
    entries = tree.scan(str(source)).entries
    (source / "one frame").write_bytes(b"short")
    async with AsyncMemoryBlobStore(page_size=4096) as store:
        with pytest.raises(catalogue.ArchiveError, match="became shorter"):
            await pack.Packer(store, str(source), lambda count: None).pack(entries)
        assert await catalogue.load_root(store) is None


async def test_a_store_without_an_archive(destination):
    async with AsyncMemoryBlobStore(page_size=4096) as store:
        with pytest.raises(catalogue.ArchiveError, match="no archive"):
            await restore_from(store, destination)
        await store.write_blob(catalogue.ROOT_GUID, bytes(4096))
        with pytest.raises(catalogue.ArchiveError, match="not an archive's root"):
            await restore_from(store, destination)


@pytest.mark.parametrize("path", ["/etc/passwd", "../up", "a/../../up"])
def test_a_catalogue_that_names_files_outside_is_refused(path):
    entries = catalogue.encode_entries([tree.Entry(path, tree.FILE, 0o644, 1)])
    with pytest.raises(catalogue.ArchiveError, match="outside"):
        catalogue.decode_entries(entries)


def _change_contents(root):
    (root / "one frame").write_bytes(os.urandom(4096))


def _change_mode(root):
    (root / "script").chmod(0o700)


def _change_link(root):
    (root / "link").unlink()
    (root / "link").symlink_to("elsewhere")


def _lose_an_empty_directory(root):
    (root / "empty directory").rmdir()


def _add_a_file(root):
    (root / "new").touch()


@pytest.mark.parametrize(
    "change",
    [_change_contents, _change_mode, _change_link, _lose_an_empty_directory, _add_a_file],
)
async def test_each_kind_of_difference_is_found(source, destination, change):
    async with AsyncMemoryBlobStore(page_size=4096) as store:
        await pack_into(store, source)
        await restore_from(store, destination)
    change(destination)
    assert len(await differences(source, destination)) == 1


@pytest.mark.parametrize("page_size", [4096, 524288], indirect=True)
def test_the_demo_as_a_command(source, store_path, engine, page_size):
    command = [sys.executable, str(ROOT / "examples" / "archive.py"), "--source", str(source)]
    command += ["--store", store_path, "--engine", engine, "--page-size", str(page_size)]
    for _again in range(2):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "no difference" in done.stdout
        assert f"engine     {engine}" in done.stdout
        assert "durable batches" in done.stdout
    assert Path(store_path).exists()


def test_the_demo_fails_when_the_source_is_missing(store_path):
    command = [sys.executable, str(ROOT / "examples" / "archive.py"), "--source", "/nonexistent"]
    done = subprocess.run([*command, "--store", store_path], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "FileNotFoundError" in done.stderr


class Terminal:
    def __init__(self):
        self.text = ""

    def isatty(self):
        return True

    def write(self, text):
        self.text += text

    def flush(self):
        pass


def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere(capsys):
    terminal = Terminal()
    with progress.Progress("packing", 8_000_000, terminal) as bar:
        bar.add(8_000_000)
    assert "#" * progress.BAR_WIDTH in terminal.text
    with progress.Progress("packing", 8_000_000) as lines:
        for _ in range(8):
            lines.add(1_000_000)
    assert capsys.readouterr().out.count("\n") == progress.PLAIN_STEPS
