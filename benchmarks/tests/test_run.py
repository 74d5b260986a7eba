"""A whole run, tiny: every measure and every sweep, what it leaves, and its exit code.

fio has a process per turn; here it is replaced by a canned answer, and tested by itself.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from uringblob.cli.main import main as command_line
from uringblob_bench import meter
from uringblob_bench.adhoc import WORKLOADS
from uringblob_bench.contenders import thread_pool
from uringblob_bench.contenders.fio import Fio
from uringblob_bench.device import flushes
from uringblob_bench.fio_sync import SyncEvidence
from uringblob_bench.measures import MEASURES, counts, scale, stall, writes
from uringblob_bench.report.data import Results
from uringblob_bench.report.markdown import BEGIN, END, put_into
from uringblob_bench.sample import Latency, Sample
from uringblob_bench.sweeps import SWEEPS, batches, depth, settings

pytestmark = [
    pytest.mark.one_interpreter,
    pytest.mark.leaks(reason="obstore's runtime and libuv's pipe live as long as the process"),
]
TINY = ["--rounds", "1", "--seconds", "0.01", "--file-size", "256k", "--page-size", "4k", "--quick"]


@pytest.fixture(autouse=True)
def the_machines_huge_pages_stay(monkeypatch):
    monkeypatch.setattr(
        "uringblob_bench.running.reserved", lambda _size: contextlib.nullcontext("not touched")
    )


@pytest.fixture
def no_fio(monkeypatch):
    """Fio answers without a process."""

    def turn(self, loads, seconds):
        return [Sample(100, 1.0, self.params.page_size, Latency.of([0.01]), 0.1, 0.1) for _ in loads]

    monkeypatch.setattr(Fio, "prepare", lambda _self: None)
    monkeypatch.setattr(Fio, "turn", turn)
    monkeypatch.setattr(writes, "fio_sync_evidence", lambda *_: SyncEvidence(True, "canned", 1, 9, 1))


def main(words):
    """Run the command line, and return its exit code."""
    return command_line(["bench", *words])


@pytest.fixture
def few_points(monkeypatch):
    """Two or three points of each sweep, and small stores: the plots need no more.

    CPU time counts by itself: that of a turn of 10 ms may be none.
    """
    cpu = itertools.count()
    monkeypatch.setattr(meter, "cpu_seconds", lambda: (next(cpu) / 1000, 0.0))
    monkeypatch.setattr(scale, "SIZES", (200, 1000))
    monkeypatch.setattr(stall, "NAMES", 1000)
    monkeypatch.setattr(depth, "DEPTHS", (1, 32))
    monkeypatch.setattr(depth, "PAGE_SIZES", (4096, 16384))
    monkeypatch.setattr(batches, "BATCHES", (1, 8))
    monkeypatch.setattr(settings, "THREAD_COUNTS", (1, 4))
    kinds = dict(list(settings.BUFFER_KINDS.items())[::3])
    monkeypatch.setattr(settings, "BUFFER_KINDS", kinds)
    monkeypatch.setattr(counts, "WORK", dict(list(counts.WORK.items())[:1]))


def read(path):
    return json.loads(Path(path).read_text("utf-8"))


#: A whole run makes these; the measures of stores in buckets need a server beside it.
MADE = range(1, 20)


def test_there_are_twenty_four_measures():
    assert list(MEASURES) == list(range(1, 25))


@pytest.mark.slow
@pytest.mark.unobserved("the measure of large stores opens one whose map no log has brought")
def test_a_whole_run(disk_dir, tmp_path, no_fio, few_points, needs_uring, capfd, monkeypatch):
    results = str(tmp_path / "results" / "results.json")
    sweeps = [word for name in SWEEPS for word in ("--sweep", name)]
    code = main([str(disk_dir), "--measures", "1-19", *sweeps, *TINY, "--budget", "120", "--json", results])
    shown = capfd.readouterr()
    unseen = unseen_here(disk_dir)
    assert code == (1 if unseen else 0), shown.out + shown.err
    data = read(results)
    assert {outcome["number"] for outcome in data["outcomes"]} == {None, *MADE}
    for outcome in data["outcomes"]:
        assert outcome["failure"] == ""
        assert outcome["number"] is None or outcome["findings"], outcome["name"]
        for finding in outcome["findings"]:
            assert (finding["measured"] is None) is (finding["what"] in unseen), finding
            assert finding["what"] in unseen or finding["verdict"] in {"reached", "not reached", "stated"}
    assert os.listdir(disk_dir) == [], "the files under test are gone"
    assert "measures" in shown.out
    check_cases(data["cases"])
    check_environment(data["environment"])
    check_page_and_plots(results, monkeypatch)


def unseen_here(directory):
    """What cannot be counted on this machine: a user's container has no strace and a masked /sys."""
    unseen = {
        "submitting enters per commit": shutil.which("strace") is None,
        "device flushes per commit": flushes(str(directory)) is None,
        "system calls of a read, alone": shutil.which("strace") is None,
    }
    return {title for title, is_unseen in unseen.items() if is_unseen}


def check_cases(cases):
    for name, case in cases.items():
        assert case["parties"], name
        assert len(case["others_cpu_share"]) == len(case["order"])
        assert {"params", "rounds", "turn_seconds", "order", "settings", "failures"} <= set(case)
        for contender, loads in case["parties"].items():
            assert contender in case["settings"]
            for load in loads:
                assert len(load["turns"]) == case["order"].count(contender)
                assert set(load["summary"]["frames_per_s"]) == {"median", "low", "high", "count"}
                for turn in load["turns"]:
                    assert {"frames", "seconds", "latency", "cpu_user_s", "cpu_system_s"} <= set(turn)


def check_environment(environment):
    assert environment["system"]["kernel"]
    assert environment["file_system"]["type"]
    assert "mount_options" in environment["file_system"]
    assert "fua" in environment["device"] or "none" in environment["device"]["name"]
    assert environment["memory"]["memlock_bytes"]
    assert environment["cpu"]["governor"]
    assert environment["versions"]["uringblob"] != "not installed"


def check_page_and_plots(results, monkeypatch):
    """Made from the JSON alone: real PNGs, and a page with one table and one plot at its top."""
    from uringblob_bench.report import plots

    # Without a layout each is drawn once instead of twice.
    monkeypatch.setitem(plots.plt.rcParams, "figure.constrained_layout.use", False)
    kept = os.path.dirname(results)
    front = Path(kept).parent / "FRONT.md"
    front.write_text(f"above\n{BEGIN}\nold\n{END}\nbelow\n", "utf-8")
    words = ["--render", results, "--readme", str(front)]
    assert main(words) == 0
    assert "old" in front.read_text("utf-8"), "a quick run changes no page"
    whole = Path(results).read_text("utf-8").replace('"quick": true', '"quick": false')
    Path(results).write_text(whole, "utf-8")
    drawn = sorted(name for name in os.listdir(kept) if name.endswith(".png"))
    monkeypatch.setattr(plots, "draw", lambda *_: drawn)  # they are there, and take most of the time
    for _ in range(2):
        assert main(words) == 0
    shown = front.read_text("utf-8")
    assert shown.startswith("above\n")
    assert shown.endswith("below\n")
    assert "old" not in shown
    assert shown.count("(results/peers.png)") == shown.count(BEGIN) == shown.count(END) == 1
    assert all(shown.count(f"| {number} | ") == 1 for number in MADE)
    assert drawn == sorted(
        f"{name}.png"
        for name in ("peers", "depth-reads", "depth-writes", "frame-size", "latency", "cpu", "buffers", "batches",
                     "scale", "space")
    )  # fmt: skip
    # A whole page of empty axes was a fine PNG once.
    for name, plot in plots.PLOTS.items():
        axes = plot(Results.read(results)).axes
        assert all(axis.has_data() for axis in axes), name
    plots.plt.close("all")
    for name in drawn:
        with open(os.path.join(kept, name), "rb") as file:
            content = file.read()
        assert content[:8] == b"\x89PNG\r\n\x1a\n"
        assert len(content) > 10_000, f"{name} is empty"
    page = (Path(kept) / "results.md").read_text("utf-8")
    for number in MADE:
        assert f"| {number} | " in page
    assert page.index("![peers](peers.png)") < page.index("## The values behind the table")
    for name in drawn:
        assert page.count(f"({name})") == 1


@pytest.mark.parametrize("text", ["", BEGIN, END, f"{END} {BEGIN}", f"{BEGIN} {END} {END}"])
def test_a_page_without_its_two_marks_is_left_alone(text):
    with pytest.raises(ValueError, match="needs one line"):
        put_into(text, "new")


def test_results_of_another_schema_are_refused(tmp_path):
    with pytest.raises(ValueError, match="schema 99"):
        Results({"schema": 99})
    path = tmp_path / "old.json"
    path.write_text('{"schema": 99}')
    assert main(["--render", str(path)]) == 2


def test_a_measure_that_fails_is_reported_and_the_rest_run(disk_dir, no_fio, needs_uring, monkeypatch, capfd):
    def broken(_bench):
        raise RuntimeError("no such luck")

    monkeypatch.setitem(MEASURES, 2, MEASURES[2].__class__(2, "broken", "broken", broken))
    assert main([str(disk_dir), "--measures", "2,6", *TINY]) == 1
    shown = capfd.readouterr().out
    assert "no such luck" in shown
    assert "sync read_blob, one thread, against os.preadv" in shown
    assert os.listdir(disk_dir) == []


def test_a_peer_that_fails_leaves_the_others_their_turns(
    disk_dir, no_fio, needs_uring, monkeypatch, tmp_path
):
    def broken(*_):
        raise OSError(5, "the pool is broken")

    monkeypatch.setattr(thread_pool.ThreadPool, "session", broken)
    path = str(tmp_path / "made" / "results.json")
    assert main([str(disk_dir), "--measures", "12", *TINY, "--json", path]) == 1
    case = read(path)["cases"]["peers: durable batches"]
    assert "the pool is broken" in case["failures"]["thread pool"]
    assert "store" in case["parties"]
    assert "sqlite3" in case["parties"]


def test_without_fio_its_measures_say_so(disk_dir, needs_uring, monkeypatch, capfd):
    monkeypatch.setattr("uringblob_bench.contenders.fio.fio_version", lambda: "")
    assert main([str(disk_dir), "--measures", "2", *TINY]) == 1
    shown = " ".join(capfd.readouterr().out.split())
    assert "not measured" in shown
    assert "fio is not installed" in shown


def test_a_used_up_budget_is_no_success(disk_dir, no_fio, needs_uring, capfd):
    assert main([str(disk_dir), "--measures", "1", *TINY, "--budget", "0.000001"]) == 1
    assert "budget was used up" in capfd.readouterr().out


@pytest.mark.parametrize("workload", WORKLOADS)
def test_a_comparison_of_ones_own(workload, disk_dir, tmp_path, needs_uring):
    kept = tmp_path / "own"
    words = ["--workload", workload, "--party", "store,pool", "--depth", "4", "--batch", "2"]
    assert main([str(disk_dir), *words, *TINY, "--output", str(kept)]) == 0
    assert sorted(os.listdir(kept)) == ["results.json", "results.md"]
    (case,) = read(kept / "results.json")["cases"].values()
    assert list(case["parties"]) == ["store", "thread pool"]
    assert len(case["parties"]["store"]) == len(WORKLOADS[workload](4, 2))


@pytest.mark.parametrize("argv", [["--measure", "99"], ["--sweep", "nothing"]])
def test_an_unknown_measure_or_sweep_is_refused(argv, disk_dir, capfd):
    assert main([str(disk_dir), *argv]) == 2
    assert "there are measures" in capfd.readouterr().err


def test_the_module_is_the_command_and_its_errors_are_json_on_request():
    command = [sys.executable, "-m", "uringblob_bench", "--rounds=x", "--json=file"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    failure = json.loads(done.stderr)
    assert (done.returncode, done.stdout) == (2, "")
    assert (failure["kind"], failure["command"]) == ("UsageError", "bench")


def test_a_directory_must_be_named_and_be_there(tmp_path, capfd):
    """A mistyped one was made, filled and left behind; the current one was the default, for twenty minutes."""
    assert main([*TINY]) == 2
    assert "name the DIRECTORY" in capfd.readouterr().err
    mistyped, file = tmp_path / "mistyped", tmp_path / "file"
    file.write_bytes(b"")
    for path in (mistyped, file):
        assert main([str(path), *TINY]) == 2
        said = capfd.readouterr()
        assert f"{path}: " in said.err
        assert "name a directory that exists" in said.err
        assert said.out == ""
    assert os.listdir(tmp_path) == ["file"]


def test_the_plan_of_a_run_is_printed_before_anything_is_made(disk_dir, monkeypatch, capfd):
    class Stop(Exception):
        pass

    def stop(_parent):
        raise Stop

    monkeypatch.setattr("uringblob_bench.running.WorkDir", stop)
    with pytest.raises(Stop):
        main([str(disk_dir)])
    said = " ".join(capfd.readouterr().out.split())
    assert f"in {disk_dir} and in memory: " in said
    minutes = int(re.search(r"about (\d+) minutes, at most 40 minutes", said)[1])
    assert 5 <= minutes <= 40
    assert "files of 1,024 MiB" in said
    with pytest.raises(Stop):
        main([str(disk_dir), "--quick", "--measure", "4"])
    said = " ".join(capfd.readouterr().out.split())
    assert f"in {disk_dir}: {MEASURES[4].title}" in said
    assert "at most 75 s" in said


def test_an_unknown_contender_is_refused(capfd):
    assert main(["--workload", "read", "--party", "store,nobody"]) == 2
    assert "no contender nobody: there are store" in capfd.readouterr().err


def heed_ctrl_c():
    """A job in a shell's background ignores it, and so would its children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_ended_by_a_signal_leaves_nothing(number, disk_dir, needs_uring):
    words = ["--workload", "read", "--party", "store", *TINY, "--seconds", "60"]
    command = [sys.executable, "-u", "-m", "uringblob_bench", str(disk_dir), *words]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c)
    while not list(disk_dir.glob("*/store-*.blobs")):  # its turn of a minute has begun, or is about to
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(number)
    _, said = child.communicate(timeout=60)
    assert (child.returncode, os.listdir(disk_dir)) == (130, []), said
    assert said == "uringblob bench: interrupted; its files are gone\n"


def test_everything_is_listed(capfd):
    assert main(["--list"]) == 0
    shown = capfd.readouterr().out
    assert all(measure.title in shown for measure in MEASURES.values())
    assert all(name in shown for name in SWEEPS)
