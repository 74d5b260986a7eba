"""The disk in memory: made, used beside the directory given, and gone after every end of a run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from uringblob.cli.main import main as command_line
from uringblob_bench import media, running
from uringblob_bench.load import MIB
from uringblob_bench.media import NoMedium, memory_disk, remove_leftovers
from uringblob_bench.sweeps import settings
from uringblob_bench.workdir import direct_flag

pytestmark = pytest.mark.one_interpreter
TINY = ["--rounds", "1", "--seconds", "0.01", "--file-size", "256k", "--page-size", "4k", "--quick"]
BOTH = ["--media", "directory,memory"]


def mounts_below(path):
    return [line for line in Path("/proc/self/mounts").read_text("utf-8").splitlines() if str(path) in line]


@pytest.fixture
def mountable(tmp_path):
    """A directory below which a disk in memory can be mounted."""
    try:
        with memory_disk(MIB, str(tmp_path)):
            pass
    except NoMedium as error:
        pytest.skip(f"n/a: {error}")
    return tmp_path


@pytest.fixture
def quiet(monkeypatch):
    """The machine's huge pages stay, and fio has no turn."""
    monkeypatch.setattr(running, "reserved", lambda _size: nullcontext("not touched"))


# ---- the mount ----------------------------------------------------------------------------------


def test_it_takes_o_direct_and_is_gone_afterwards(mountable):
    with memory_disk(MIB, str(mountable)) as disk:
        assert os.path.ismount(disk)
        path = os.path.join(disk, "file")
        Path(path).write_bytes(bytes(4096))
        assert direct_flag(path)
        assert len(mounts_below(mountable)) == 2
    assert mounts_below(mountable) == os.listdir(mountable) == []


def test_it_is_gone_after_an_exception_too(mountable):
    with pytest.raises(LookupError), memory_disk(MIB, str(mountable)):
        raise LookupError
    assert mounts_below(mountable) == os.listdir(mountable) == []


def test_a_file_that_is_open_at_the_end_does_not_keep_it(mountable, monkeypatch):
    monkeypatch.setattr(media, "_BUSY_S", 0.0)
    with memory_disk(MIB, str(mountable)) as disk:
        file = open(os.path.join(disk, "file"), "wb")  # noqa: SIM115 - it outlives the block
    file.close()
    assert mounts_below(mountable) == os.listdir(mountable) == []


def test_the_disk_of_a_killed_run_is_removed_by_the_next_and_that_of_a_living_one_is_not(mountable):
    code = (
        "import sys, time; from uringblob_bench.media import memory_disk\n"
        f"with memory_disk({MIB}, sys.argv[1]) as disk: print(disk, flush=True); time.sleep(600)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(mountable)], stdout=subprocess.PIPE, text=True)
    with child:
        disk = child.stdout.readline().strip()
        remove_leftovers(str(mountable))
        assert os.path.ismount(disk)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert os.path.ismount(disk)
    remove_leftovers(str(mountable))
    assert mounts_below(mountable) == os.listdir(mountable) == []


def test_without_root_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(NoMedium, match="needs root"), memory_disk(MIB, str(tmp_path)):
        pass
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"_run": ("mkfs.ext4 ended with 1: no such luck")}, "no such luck"),
        ({"meminfo": 1}, "free memory are too much"),
    ],
)
def test_what_cannot_be_made_is_named_and_leaves_nothing(tmp_path, monkeypatch, change, said):
    def refuse(*_command):
        raise NoMedium(change["_run"])

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    if "_run" in change:
        monkeypatch.setattr(media, "_run", refuse)
        monkeypatch.setattr(media, "meminfo", lambda _: 1 << 30)
    else:
        monkeypatch.setattr(media, "meminfo", lambda _: change["meminfo"])
    with pytest.raises(NoMedium, match=said), memory_disk(MIB, str(tmp_path)):
        pass
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("command", "said"),
    [(["no-such-program"], "no-such-program: "), (["false"], "false ended with 1")],
)
def test_a_program_that_is_missing_or_fails_is_named(command, said):
    with pytest.raises(NoMedium, match=said):
        media._run(*command)


# ---- a run on both ------------------------------------------------------------------------------


def run(words, tmp_path):
    """Run the command line; return its exit code and what it left."""
    code = command_line(["bench", *words, *TINY, "--output", str(tmp_path / "kept")])
    kept = tmp_path / "kept" / "results.json"
    return code, json.loads(kept.read_text("utf-8")), (tmp_path / "kept" / "results.md").read_text("utf-8")


def test_measures_run_on_both_and_sweeps_on_the_first(
    disk_dir, tmp_path, quiet, needs_uring, monkeypatch, capfd
):
    directory, memory = disk_dir / "directory", disk_dir / "memory"
    directory.mkdir()
    memory.mkdir()
    monkeypatch.setattr(running, "memory_disk", lambda _size: nullcontext(str(memory)))
    monkeypatch.setattr(settings, "THREAD_COUNTS", (1,))
    code, data, page = run([str(directory), "--measure", "19", "--sweep", "threads", *BOTH], tmp_path)
    shown = capfd.readouterr().out
    assert code == 0, shown
    assert [(each["name"], each["medium"]) for each in data["outcomes"]] == [
        ("no-device", "directory"),
        ("no-device", "memory"),
        ("threads", "directory"),
    ]
    for name, case in data["cases"].items():
        assert name.endswith(", memory") is (case["medium"] == "memory")
    assert set(data["environment"]["media"]) == {"directory", "memory"}
    assert "| 19 | directory | " in page
    assert "| 19 | memory | " in page
    assert "The medium `memory` is " in page
    assert "threads: 1, directory" in shown
    assert "without checksums, memory" in shown
    assert os.listdir(directory) == os.listdir(memory) == []


def test_a_medium_that_is_missing_is_said_in_a_line_and_the_other_is_measured(
    disk_dir, tmp_path, quiet, needs_uring, monkeypatch, capfd
):
    @contextmanager
    def refused(_size):
        raise NoMedium("not here")
        yield

    monkeypatch.setattr(running, "memory_disk", refused)
    code, data, page = run([str(disk_dir), "--measure", "19", *BOTH], tmp_path)
    assert code == 0
    assert "\nmemory: left out: not here\n" in capfd.readouterr().out
    assert data["environment"]["media"]["memory"] == "left out: not here"
    assert "There is no medium `memory`, left out: not here." in page
    assert [each["medium"] for each in data["outcomes"]] == ["directory"]
    assert command_line(["bench", "--media", "memory", "--measure", "19", *TINY]) != 0
    assert "no disk in memory: left out: not here" in capfd.readouterr().err


def test_a_run_in_memory_alone_needs_no_directory(mountable, tmp_path, quiet, needs_uring, monkeypatch):
    monkeypatch.setattr(running, "memory_disk", lambda size: memory_disk(size, str(mountable)))
    code, data, _ = run(["--media", "memory", "--workload", "commit", "--party", "store,os"], tmp_path)
    assert code == 0
    (case,) = data["cases"].values()
    assert case["medium"] == "memory"
    assert data["environment"]["file_system"]["type"] == "ext4"
    assert mounts_below(mountable) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_in_memory_that_is_ended_by_a_signal_unmounts(number, mountable, needs_uring):
    words = ["--media", "memory", "--workload", "read", "--party", "store", *TINY, "--seconds", "60"]
    child = subprocess.Popen(
        [sys.executable, "-u", "-m", "uringblob_bench", *words],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(mountable)},
        # A job in a shell's background ignores it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while not list(mountable.glob("*/disk/*/store-*.blobs")):
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(number)
    _, said = child.communicate(timeout=60)
    assert (child.returncode, os.listdir(mountable), mounts_below(mountable)) == (130, [], []), said


def test_an_unknown_medium_is_refused(capfd):
    assert command_line(["bench", "--media", "tape"]) == 2
    assert "'tape': write one of directory, memory, or both" in capfd.readouterr().err
