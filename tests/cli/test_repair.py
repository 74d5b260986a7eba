"""``uringblob repair``: exit codes, words and JSON."""

from __future__ import annotations

import json

import pytest

from uringblob import FileBlobStore

PAGE = 4096


@pytest.fixture
def target(store):
    return f"{store}.saved"


def damage(path, offset, data):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def test_a_whole_store_is_saved_for_certain(run, store, guids, target):
    done = run("repair", store, target)
    assert (done.code, done.out) == (0, f"{target}: 3 blobs saved, of 4 KiB each\n".encode())
    assert run("ls", target).out == run("ls", store).out


def test_without_superblocks_nothing_is_certain(run, store, guids, target):
    damage(store, 0, bytes(2 * PAGE))
    done = run("repair", store, target)
    assert done.code == 1
    assert b"nothing tells whether there was a later one" in done.out
    with FileBlobStore.open(target, read_only=True) as saved:
        assert sorted(saved.list_blobs()) == sorted(guids)


def test_what_is_lost_is_named(run, store, guids, target):
    with open(store, "rb") as file:
        offset = file.read().index(bytes([2]) * PAGE)
    damage(store, offset, b"rot")
    done = run("repair", store, target, "--json")
    report = json.loads(done.out)
    assert (done.code, report["complete"], report["saved"]) == (1, False, 2)
    (lost,) = report["lost"]
    assert (lost["guid"], lost["offset"], lost["slot"]) == (str(guids[2]), offset, offset // PAGE)
