"""The command line takes the URL of a bucket wherever it takes the path of a store."""

from __future__ import annotations

import json
import os
import sys

import pytest

from uringblob import INCOMPLETE, BlobGuid, FileBlobStore
from uringblob.api import backup
from uringblob.cli.arguments import is_url

pytestmark = pytest.mark.one_interpreter
PAGE = 4096


@pytest.fixture
def url(moto, prefix):
    return f"s3://bucket/{prefix}?endpoint={moto.endpoint}"


def change(path, guid, content):
    with FileBlobStore.open(path) as opened:
        opened.commit([(guid, content * PAGE)])


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        *[("s3://bucket", True), ("S3://b/p?x=y", True), ("gs://b", True), ("file:///tmp/x", True)],
        *[("frames.blobs", False), ("/tmp/s3://x", False), ("./s3://x", False), ("c:/x", False), ("", False)],
    ],
)
def test_a_path_is_told_from_a_url(text, answer):
    assert is_url(text) is answer


def test_a_life_in_a_bucket(run, url, tmp_path):
    made = run("create", url, "--page-size", "4k")
    assert (made.code, made.out.decode()) == (0, f"{url}: frames of 4 KiB\n")
    again = run("create", url, "--page-size", "4k")
    assert (again.code, again.err) == (3, f"uringblob create: {url}: File exists\n")
    guid = run("put", url, "-", "--meta", "picture", stdin=b"x" * PAGE).out.decode().strip()
    assert run("ls", url, "--meta").out.decode() == f"{guid}  picture\n"
    assert run("get", url, guid, tmp_path / "frame").code == 0
    assert (tmp_path / "frame").read_bytes() == b"x" * PAGE
    verified = run("verify", url)
    assert verified.code == 0, verified.err
    shown = run("info", url).out.decode()
    assert "frames  1 of 4 KiB" in shown
    assert "engine  remote: objects in s3://bucket/test-" in shown
    assert "slots" not in shown
    assert json.loads(run("info", url, "--json").out)["blobs"] == 1
    assert run("rm", url, guid).code == 0
    assert run("ls", url).out == b""


def test_a_backup_in_a_bucket_is_incremental_and_restores(run, store, guids, url, tmp_path):
    done = run("backup", store, url)
    assert (done.code, done.err) == (0, "")
    assert done.out.decode() == "3 blobs copied, 0 there already, 0 deleted (12 KiB of frames)\n"
    change(store, guids[1], b"x")
    with FileBlobStore.open(store) as opened:
        opened.commit(deletes=[guids[2]])
    assert b"1 blobs copied, 1 there already, 1 deleted" in run("backup", store, url).out
    assert run("diff", store, url).code == 0
    target = str(tmp_path / "restored.blobs")
    assert b"2 blobs copied" in run("restore", url, target).out
    assert run("diff", store, target).code == 0
    change(target, guids[1], b"y")
    refused = run("restore", url, target)
    assert (refused.code, "--replace" in refused.err) == (2, True)
    assert b"1 blobs copied, 1 there already" in run("restore", url, target, "--replace").out
    assert run("diff", url, target).code == 0


def test_an_earlier_backup_in_a_bucket_stays_until_the_next_is_complete(
    run, store, guids, url, tmp_path, monkeypatch
):
    run("backup", store, url)
    with FileBlobStore.open(store) as opened:
        opened.commit([(guid, b"n" * PAGE) for guid in guids])
    with monkeypatch.context() as patch:
        patch.setattr(backup, "_STEP_BYTES", PAGE)
        copy = backup._Backup._copy

        async def once(self, names, frames):
            if self._copied:
                raise KeyboardInterrupt
            await copy(self, names, frames)

        patch.setattr(backup._Backup, "_copy", once)
        assert run("backup", store, url).code == 130
    target = str(tmp_path / "restored.blobs")
    assert b"3 blobs copied" in run("restore", url, target).out
    with FileBlobStore.open(target) as restored:
        room = bytearray(PAGE)
        restored.read_blob(guids[0], room)
        assert bytes(room) == b"\0" * PAGE, "the earlier backup's"
        assert not restored.has_blob(INCOMPLETE)


def test_from_bucket_to_bucket(run, store, guids, url):
    run("backup", store, url)
    other = url.replace("?", "/other?")
    assert run("copy", url, other).code == 0
    assert run("diff", url, other).code == 0


def test_export_and_import(run, store, guids, url, tmp_path):
    run("backup", store, url)
    assert run("export", url, tmp_path / "files").code == 0
    other = url.replace("?", "/other?")
    assert run("import", tmp_path / "files", other).code == 0
    assert run("diff", url, other).code == 0


@pytest.mark.parametrize("words", [["ls"], ["info"], ["verify"], ["rm", str(BlobGuid(bytes(16)))]])
def test_where_there_is_no_store_the_way_to_one_is_named(run, url, words):
    result = run(words[0], url, *words[1:])
    assert (result.code, result.err) == (
        3,
        f"uringblob {words[0]}: {url}: there is no store; 'uringblob create' makes one\n",
    )


def test_a_missing_bucket_is_one_line(run, url):
    result = run("create", url.replace("bucket", "nowhere"))
    assert result.code == 3
    assert "make the bucket first" in result.err
    assert result.err.count("\n") == 1


def test_a_wrong_url_is_wrong_usage(run):
    result = run("ls", "s3://key:secret@bucket/x")
    assert (result.code, "secret" in result.err) == (2, False)


@pytest.mark.parametrize("command", ["repair", "import-holt"])
def test_what_needs_a_file_says_so(run, url, command, tmp_path):
    words = [url, tmp_path / "new"] if command == "repair" else [tmp_path, url]
    result = run(command, *words)
    assert result.code == 2
    assert f"{url} is no path: 'uringblob {command}' needs a store file" in result.err
    assert os.listdir(tmp_path) == []


def test_without_obstore_the_line_that_gets_it_is_printed(run, url, monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.delitem(sys.modules, "uringblob.remote.obstore_bucket", raising=False)
    result = run("ls", url)
    assert result.code == 3
    assert "pip install 'uringblob[remote]'" in result.err
