"""Each command does what its help says, in words and as JSON."""

from __future__ import annotations

import json
import os
import time

import pytest

from uringblob import BlobGuid, FileBlobStore

PAGE = 4096


def frame_in(store, guid):
    room = bytearray(PAGE)
    with FileBlobStore.open(store, read_only=True) as opened:
        opened.read_blob(guid, room)
    return bytes(room)


def test_create_makes_an_empty_store(run, store_path):
    assert run("create", store_path, "--page-size", 8192).code == 0
    with FileBlobStore.open(store_path) as opened:
        assert opened.page_size == 8192
        assert opened.list_blobs() == []
    assert os.stat(store_path).st_mode & 0o777 == 0o600


def test_create_replaces_nothing(run, store):
    result = run("create", store)
    assert result.code == 3
    assert "File exists" in result.err


def test_create_takes_sizes_as_people_write_them(run, store_path):
    assert run("create", store_path, "--page-size", "8k").code == 0
    assert json.loads(run("info", store_path, "--json").out)["page_size"] == 8192


def test_create_gives_the_file_its_mode(run, store_path):
    assert run("create", store_path, "--mode", "640").code == 0
    assert os.stat(store_path).st_mode & 0o777 == 0o640


@pytest.mark.parametrize("mode", ["999", "rw", "0o600", ""])
def test_an_invalid_mode_is_explained(run, store_path, mode):
    result = run("create", store_path, "--mode", mode)
    assert result.code == 2
    assert "octal digits" in result.err


def test_create_names_the_file_that_was_asked_for(run, tmp_path):
    """It named its temporary file."""
    result = run("create", tmp_path / "nowhere" / "new.blobs")
    assert result.err == f"uringblob create: {tmp_path}/nowhere/new.blobs: No such file or directory\n"


def test_info_shows_frames_engine_and_notes(run, store, guids):
    result = run("info", store)
    assert result.code == 0
    assert b"3 of 4 KiB" in result.out
    value = json.loads(run("info", store, "--json").out)
    assert value["blobs"] == 3
    assert value["page_size"] == PAGE
    assert value["log_bytes"] == value["slots_log"] * PAGE > 0
    assert value["amplification"] == value["file_bytes"] / (3 * PAGE)
    assert f"; {value['amplification']:.2f} times what is live" in result.out.decode()


def test_info_of_an_empty_store_has_no_ratio(run, store):
    result = run("info", store)
    assert result.code == 0
    assert b"for the log" in result.out
    assert b"times" not in result.out
    assert json.loads(run("info", store, "--json").out)["amplification"] == 0


def test_ls_lists_sorted(run, store, guids):
    assert run("ls", store).out.decode().split() == [str(guid) for guid in guids]
    rows = json.loads(run("ls", store, "--long", "--json").out)
    assert [row["guid"] for row in rows] == [str(guid) for guid in guids]
    assert len({row["xxh3_64"] for row in rows}) == 3


def test_put_and_get_carry_one_frame(run, store, tmp_path):
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(os.urandom(PAGE))
    guid = run("put", store, source).out.decode().strip()
    assert run("get", store, guid, target).code == 0
    assert target.read_bytes() == source.read_bytes()
    assert run("get", store, guid.replace("-", ""), "-").out == source.read_bytes()


def test_put_keeps_metadata_that_ls_shows(run, store, guids, tmp_path):
    (tmp_path / "frame").write_bytes(bytes(PAGE))
    texts = {guids[0]: "image/png; Größe=3", guids[1]: "tab\there"}
    for guid, text in texts.items():
        assert run("put", store, str(tmp_path / "frame"), "--guid", str(guid), "--meta", text).code == 0
    lines = dict(line.partition("  ")[::2] for line in run("ls", store, "--meta").out.decode().splitlines())
    assert lines[str(guids[0])] == texts[guids[0]]
    assert lines[str(guids[1])] == texts[guids[1]].encode().hex(), "what a terminal would act on is in hex"
    assert lines[str(guids[2])] == ""
    rows = {row["guid"]: row for row in json.loads(run("ls", store, "--meta", "--long", "--json").out)}
    assert bytes.fromhex(rows[str(guids[0])]["meta_hex"]).decode() == texts[guids[0]]
    assert len(rows[str(guids[0])]["xxh3_64"]) == 16


def test_metadata_that_is_too_long_is_refused(run, store, tmp_path):
    (tmp_path / "frame").write_bytes(bytes(PAGE))
    result = run("put", store, str(tmp_path / "frame"), "--meta", "x" * 256)
    assert result.code == 2
    assert "at most 255 bytes, not 256" in result.err


def test_info_shows_label_format_and_time_of_creation(run, store_path):
    assert run("create", store_path, "--page-size", "12k", "--label", "thumbnails, 2. Größe").code == 0
    shown = run("info", store_path).out.decode()
    assert "thumbnails, 2. Größe" in shown
    made = json.loads(run("info", store_path, "--json").out)
    assert (made["page_size"], made["format_version"], made["features"]) == (12288, 2, [])
    assert made["label"] == "thumbnails, 2. Größe"
    assert f"version 2, made {time.strftime('%Y-%m-%d', time.gmtime(made['created_ns'] / 1e9))}" in shown
    assert abs(made["created_ns"] / 1e9 - os.stat(store_path).st_mtime) < 3600


def test_a_label_that_is_too_long_is_refused(run, store_path):
    result = run("create", store_path, "--label", "x" * 65)
    assert result.code == 2
    assert "at most 64 bytes" in result.err
    assert not os.path.exists(store_path)


def test_put_from_standard_input_under_a_name(run, store, guids):
    result = run("put", store, "-", "--guid", guids[0].hex(), "--json", stdin=b"n" * PAGE)
    assert json.loads(result.out) == {"guid": str(guids[0]), "length": PAGE}
    assert frame_in(store, guids[0]) == b"n" * PAGE


def test_a_short_input_is_refused_unless_it_may_be_padded(run, store):
    result = run("put", store, "-", stdin=b"short")
    assert result.code == 2
    assert "5 bytes" in result.err
    assert "4096" in result.err
    guid, length = run("put", store, "-", "--pad", stdin=b"short").out.decode().split()
    assert length == "5"
    assert run("get", store, guid, "-", "--length", length).out == b"short"


@pytest.mark.parametrize("pad", [(), ("--pad",)])
def test_a_long_input_is_refused(run, store, pad):
    result = run("put", store, "-", *pad, stdin=bytes(PAGE + 1))
    assert result.code == 2
    assert "longer" in result.err
    assert run("ls", store).out.strip() == b""


def test_get_of_a_missing_blob_is_code_1_and_writes_nothing(run, store, tmp_path):
    result = run("get", store, BlobGuid.random(), tmp_path / "out")
    assert result.code == 1
    assert "no blob" in result.err
    assert not (tmp_path / "out").exists()


def test_get_of_more_than_a_frame_is_wrong_usage(run, store, guids):
    assert run("get", store, guids[0], "-", "--length", PAGE + 1).code == 2


def test_get_does_not_replace_the_store_itself(run, store, guids, tmp_path):
    """It truncated the store to one frame."""
    link = tmp_path / "link"
    link.symlink_to(store)
    for target in (store, link):
        result = run("get", store, guids[0], target)
        assert result.code == 2
        assert "the store itself" in result.err
    assert run("verify", store).code == 0


def test_get_to_standard_output_excludes_json(run, store, guids):
    result = run("get", store, guids[0], "-", "--json")
    assert (result.code, result.out) == (2, b"")


def test_create_makes_the_target_of_a_dangling_link_and_replaces_no_store(run, tmp_path):
    """As ``open`` does."""
    link, target = tmp_path / "link", tmp_path / "target"
    link.symlink_to(target)
    assert run("create", link, "--page-size", "4k").code == 0
    assert (link.is_symlink(), target.is_file()) == (True, True)
    again = run("create", link, "--page-size", "4k")
    assert again.code != 0
    assert "File exists" in again.err


def test_rm_takes_a_name_twice_as_once(run, store, guids):
    value = json.loads(run("rm", store, guids[0], guids[0], guids[1], "--json").out)
    assert value == {"deleted": [str(guids[0]), str(guids[1])], "missing": []}


def test_rm_deletes_all_or_none(run, store, guids):
    result = run("rm", store, guids[0], BlobGuid.random())
    assert result.code == 1
    assert "nothing was deleted" in result.err
    assert len(run("ls", store).out.split()) == 3
    assert run("rm", store, guids[0], BlobGuid.random(), "--force").code == 0
    assert run("rm", store, guids[1], guids[2]).code == 0
    assert run("ls", store).out.strip() == b""


def test_verify_names_the_bad_blob(run, store, guids):
    assert run("verify", store).code == 0
    with open(store, "r+b") as file:
        raw = file.read()
        file.seek(raw.index(b"\x02" * PAGE) + 5)
        file.write(b"!")
    result = run("verify", store, "--json")
    assert result.code == 1
    value = json.loads(result.out)
    assert [bad["guid"] for bad in value["bad"]] == [str(guids[2])]
    assert run("get", store, guids[2], "-").code == 1
    assert run("get", store, guids[1], "-").out == b"\x01" * PAGE


def test_verify_goes_on_where_its_deadline_has_ended_it(run, store, guids):
    seen, since = [], []
    for _ in guids:
        result = run("verify", store, "--json", "--rate", "4k", "--deadline", "0", *since)
        assert result.code == 0
        value = json.loads(result.out)
        assert value["blobs_checked"] == 1
        seen.append(value["resume"])
        since = ["--since", value["resume"]]
    assert seen == [*map(str, sorted(guids)[:-1]), None]
    words = run("verify", store, "--deadline", "0", "--rate", "4k").out.decode()
    assert f"resume with since={min(guids)}" in words


@pytest.mark.parametrize("command", ["info", "ls", "verify"])
def test_reading_commands_change_no_byte(run, store, guids, command):
    with open(store, "rb") as file:
        before = file.read()
    assert run(command, store).code == 0
    with open(store, "rb") as file:
        assert file.read() == before
