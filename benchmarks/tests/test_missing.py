"""What the benchmark says where a program, a peer, a device's figures or a contender's turns are missing."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import errno
import os
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from uringblob_bench import (
    adhoc,
    counts,
    environment,
    fio_sync,
    hugepages,
    memory_kind,
    running,
    system_load,
)
from uringblob_bench.bench import Bench, Pace
from uringblob_bench.command import EXIT_FAILED
from uringblob_bench.contenders.base import CannotRun, _ended_by_signals
from uringblob_bench.contenders.catalogue import every_peer
from uringblob_bench.contenders.eventfd import eventfd_of
from uringblob_bench.contenders.fio import Fio, fio_version
from uringblob_bench.contenders.ring import _whole
from uringblob_bench.contenders.ring_sync import settled
from uringblob_bench.finding import at_least
from uringblob_bench.interleave import Entry
from uringblob_bench.load import Load, Verb
from uringblob_bench.measures import peers, scale, stall
from uringblob_bench.meter import Meter, Worker
from uringblob_bench.options import add_arguments
from uringblob_bench.picker import Exhausted, Picker
from uringblob_bench.report import markdown, plots
from uringblob_bench.report.data import SCHEMA, Results
from uringblob_bench.sample import Latency
from uringblob_bench.scale.contender import ManyBlobs
from uringblob_bench.workdir import direct_flag

pytestmark = pytest.mark.one_interpreter


@pytest.fixture
def hidden(monkeypatch):
    """Hide programs from ``shutil.which``."""
    real = shutil.which

    def hide(*names):
        monkeypatch.setattr(shutil, "which", lambda name: None if name in names else real(name))

    return hide


@pytest.fixture
def bench(workdir, params):
    return Bench(workdir, params, Pace(rounds=1, seconds=0.01, blobs_max=100))


# ---- peers and programs -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("aiofiles", "aiofiles"),
        ("caio", "caio"),
        ("obstore", "obstore"),
        ("py-lmdb", "lmdb"),
        ("rocksdict", "rocksdict"),
    ],
)
def test_a_peer_that_is_not_installed_cannot_run(params, workdir, monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    peer = next(peer for peer in every_peer(params, workdir) if peer.name == name)
    with pytest.raises(CannotRun, match=f"{module}.* (is not installed|is not here)"):
        peer.prepare()


def test_a_polling_thread_that_the_kernel_does_not_allow_is_no_failure(params, workdir, monkeypatch):
    ring = SimpleNamespace(SQPOLL_ALLOWED=False)
    monkeypatch.setitem(sys.modules, "caio", SimpleNamespace(linux_uring=ring))
    peer = next(peer for peer in every_peer(params, workdir) if peer.name == "caio (SQPOLL)")
    with pytest.raises(CannotRun, match="SQPOLL is not allowed here"):
        peer.prepare()


def test_without_fio_or_strace_fio_is_not_trusted(params, workdir, hidden, monkeypatch):
    hidden("fio")
    assert fio_version.__wrapped__() == ""  # it asks once in a process
    monkeypatch.setattr(fio_sync, "fio_version", lambda: "")
    assert fio_sync.fio_sync_evidence(params, workdir, 4).words == "fio is not installed"
    hidden("strace")
    monkeypatch.setattr(fio_sync, "fio_version", lambda: "fio-3.33")
    evidence = fio_sync.fio_sync_evidence(params, workdir, 4)
    assert not evidence.trusted
    assert "strace is not installed" in evidence.words


def ending_with(code, stderr):
    def run(command, **_):
        return subprocess.CompletedProcess(command, code, "", stderr)

    return run


def test_an_strace_that_is_refused_proves_nothing_about_fio(params, workdir, monkeypatch):
    monkeypatch.setattr(fio_sync, "fio_version", lambda: "fio-3.33")
    monkeypatch.setattr(shutil, "which", lambda name: name)
    monkeypatch.setattr(subprocess, "run", ending_with(1, "strace: ptrace: Operation not permitted"))
    evidence = fio_sync.fio_sync_evidence(params, workdir, 4)
    assert not evidence.trusted
    assert evidence.words == "strace ended with 1: strace: ptrace: Operation not permitted"


def test_without_strace_the_device_still_counts(params, workdir, hidden, monkeypatch):
    hidden("strace")
    monkeypatch.setattr(counts, "_child", lambda *_: "[1, 2, 1]")
    counted = counts.count_commits(params, workdir)
    assert (counted.submitting_enters, counted.enters_words) == (None, "strace is not installed")
    assert counted.device_flushes == 1


def test_a_device_that_does_not_count_and_an_strace_that_fails_give_no_figure(params, workdir, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(counts, "_child", lambda *_: "[]")
    counted = counts.count_commits(params, workdir)
    assert (counted.device_flushes, counted.flushes_words) == (None, "the device does not count its flushes")
    monkeypatch.setattr(shutil, "which", lambda name: name)

    def refused(*_):
        raise subprocess.CalledProcessError(1, "strace")

    monkeypatch.setattr(counts, "_child", refused)
    counted = counts.count_commits(params, workdir)
    assert counted.submitting_enters is None
    assert counted.enters_words.startswith("strace failed: ")
    assert counted.flushes_words == "the child failed"


# ---- the machine ------------------------------------------------------------------------------


def test_what_lies_on_no_block_device_has_no_device(monkeypatch):
    monkeypatch.setattr(environment, "device_directory", lambda _: "")
    assert environment._device("/") == {"name": "none: not on a block device"}


def test_a_partition_has_its_disks_queue(tmp_path, monkeypatch):
    (tmp_path / "vda" / "queue").mkdir(parents=True)
    (tmp_path / "vda" / "vda1").mkdir()
    (tmp_path / "vda" / "queue" / "write_cache").write_text("write back\n")
    monkeypatch.setattr(environment, "device_directory", lambda _: str(tmp_path / "vda" / "vda1"))
    assert environment._device("/")["write_cache"] == "write back"


def test_versions_of_what_is_not_installed_say_so(monkeypatch):
    def version(name):
        raise environment.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(environment.metadata, "version", version)
    monkeypatch.setattr(environment, "fio_version", lambda: "")
    versions = environment._versions()
    assert versions["fio"] == versions["uringblob"] == "not installed"


def test_figures_that_the_system_does_not_have_are_zero(monkeypatch):
    monkeypatch.setattr(system_load, "read_text", lambda _: "")
    assert system_load.machine_cpu_s() == 0
    assert hugepages.meminfo("NoSuchFigure") == 0


def test_small_pages_that_are_unavailable_are_an_error(monkeypatch):
    with memory_kind.small_pages(False):
        pass
    library = SimpleNamespace(prctl=lambda *_: -1)
    monkeypatch.setattr(memory_kind.ctypes, "CDLL", lambda *_, **__: library)
    monkeypatch.setattr(memory_kind.ctypes, "get_errno", lambda: errno.EPERM)
    with pytest.raises(OSError, match="PR_SET_THP_DISABLE") as raised, memory_kind.small_pages(True):
        pass
    assert raised.value.errno == errno.EPERM
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(OSError, match="only Linux has"), memory_kind.small_pages(True):
        pass


def test_where_a_file_is_refused_with_o_direct_it_is_read_through_the_cache(disk_dir, monkeypatch):
    path = disk_dir / "file"
    path.write_bytes(b"")
    real = os.open

    def refuse(path, flags, *rest):
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "no")
        return real(path, flags, *rest)

    monkeypatch.setattr(os, "open", refuse)
    assert direct_flag(path) == 0


@pytest.mark.parametrize(("answer", "number"), [(100, errno.EIO), (-errno.ENOSPC, errno.ENOSPC)])
async def test_a_transfer_that_is_not_whole_ends_the_turn(answer, number):
    async def operation():
        return answer

    with pytest.raises(OSError, match=f"answered {answer} instead of 4096"):
        await _whole(operation(), 4096)
    with pytest.raises(OSError, match=f"answered {answer} instead of 4096") as raised:
        await settled([operation()], [4096])
    assert raised.value.errno == number


# ---- turns and figures ------------------------------------------------------------------------


class Broken:
    """A contender that cannot even prepare."""

    def __init__(self, name="broken"):
        self.name = name
        self.durability = ""

    def prepare(self):
        raise CannotRun("not here")

    def settings(self):
        return {}


def test_a_comparison_in_which_no_contender_took_a_turn_is_an_error(bench, monkeypatch):
    monkeypatch.setitem(adhoc.CONTENDERS, "broken", lambda params, workdir: Broken())
    with pytest.raises(RuntimeError, match=r"no contender could run: .*not here"):
        adhoc.AdHoc(contenders=("broken",), workload="read", depth=1, batch=1).run(bench)


def test_a_store_that_takes_no_turn_fails_its_measure(bench, monkeypatch):
    monkeypatch.setattr(stall, "AsyncStore", lambda params, workdir: Broken("store"))
    with pytest.raises(RuntimeError, match=r"the store failed: .*not here"):
        stall.loop_stall(bench)


def test_a_store_of_many_blobs_that_fails_fails_its_measures(bench, monkeypatch):
    monkeypatch.setattr(ManyBlobs, "prepare", Broken.prepare)
    with pytest.raises(RuntimeError, match=r"the store failed: .*not here"):
        scale.many_blobs(bench)
    with pytest.raises(RuntimeError, match="not enough sizes"):
        scale.growth_of_costs(bench)


def test_a_child_that_fails_is_a_contender_that_cannot_run(params, workdir, monkeypatch):
    monkeypatch.setattr(subprocess, "run", ending_with(3, "Traceback: no memory"))
    with pytest.raises(CannotRun, match="ended with 3: Traceback: no memory"):
        ManyBlobs(params, workdir, 10).turn([], 0.0)


def test_without_any_peer_the_best_peer_is_not_measured(bench):
    case = bench.case("nobody", [Entry(Broken(), (Load(Verb.READ, 1),))])
    found = peers._against(case, "reads", 1.0, lambda _: None)
    assert found.measured is None
    assert not found.reached
    assert "no peer: " in found.detail


def test_what_was_not_measured_is_not_reached_and_a_dash():
    assert not at_least("x", None, 1.0).reached
    assert markdown.number(None, "MB/s") == "-"


def test_no_call_at_all_has_no_latency():
    latency = Latency.of([])
    assert (latency.p50_s, latency.p99_s, latency.max_s) == (0, 0, 0)


@pytest.fixture
def nothing():
    """The results of a run in which nothing could be measured, and one measure failed."""
    failed = {"number": 1, "title": "reads", "failure": "no fio", "findings": [], "seconds": 0.0}
    return {"schema": SCHEMA, "environment": {}, "settings": {}, "outcomes": [failed], "cases": {}}


@pytest.mark.parametrize("name", plots.PLOTS)
def test_what_was_not_measured_is_not_drawn(nothing, name):
    assert plots.PLOTS[name](Results(nothing)) is None


def test_a_page_without_plots_shows_none(nothing, tmp_path):
    assert plots.draw(Results(nothing), str(tmp_path)) == []
    assert os.listdir(tmp_path) == []
    here = {"kernel": "6.18", "usable": 2, "model": "some", "name": "vda"}
    versions = {"python": "3.11", "uringblob": "0", "fio": "none"}
    nothing["environment"] = {
        **dict.fromkeys(["system", "file_system", "device", "cpu"], here),
        "versions": versions,
    }
    page = markdown.summary(Results(nothing), [], "benchmarks")
    assert "failed: no fio" in page
    assert "![" not in page


def test_a_measure_that_failed_stands_in_both_tables_with_its_reason(nothing):
    results = Results(nothing)
    for table in (markdown.measures(results), markdown.short_table(results)):
        assert [line for line in table if "| 1 | directory | reads | failed: no fio |" in line]
    assert markdown.peers(results) == []
    results.outcomes[0]["number"] = None
    assert markdown.measures(results) == []


@pytest.mark.parametrize(("thin", "taken"), [(False, [1, 2, 3, 4, 5]), (True, [1, 3, 5])])
def test_a_thin_sweep_takes_the_ends_and_the_middle(workdir, params, thin, taken):
    assert Bench(workdir, params, Pace(1, 0.01, thin=thin)).points([1, 2, 3, 4, 5]) == taken


def test_a_batch_that_one_pass_cannot_fill_ends_it():
    picker = Picker(5, once=True)
    assert len(picker.some(4)) == 4
    with pytest.raises(Exhausted):
        picker.some(4)


def test_a_turn_that_was_over_before_it_was_counted_cost_nothing():
    """A file that was read once during the warm-up."""
    meter = Meter(10.0, 10.0)
    worker = Worker(meter)
    worker.exhausted(0.0)
    assert worker.done
    assert meter.cpu() == (0.0, 0.0)


def test_an_eventfd_that_the_kernel_refuses_is_closed_again():
    """The suite looks for descriptors after every test."""
    reader, writer = os.pipe()
    with pytest.raises(OSError, match="io_uring_register of an eventfd"):
        eventfd_of(reader)  # no ring at all: EOPNOTSUPP
    os.close(reader)
    os.close(writer)


def test_fio_gets_the_number_of_its_core(params, workdir):
    fio = Fio(dataclasses.replace(params, one_core=True), workdir)
    loads = (Load(Verb.READ, 1),)
    command = fio.command(loads, fio.environment(loads, 0.01))
    assert f"--cpus_allowed={max(os.sched_getaffinity(0))}" in command


def test_a_disk_with_little_room_is_warned_of(disk_dir, monkeypatch, capfd):
    monkeypatch.setattr(running.WorkDir, "free_bytes", lambda workdir: 1000)
    args = argparse.ArgumentParser()
    add_arguments(args)
    terminal = running.Terminal()
    record = running.take_steps(args.parse_args([str(disk_dir), "--quick"]), [], terminal)
    assert not record.cases
    assert "only 1,000 bytes are free: peers may fail" in capfd.readouterr().out


def test_the_second_ctrl_c_does_not_wait_and_a_cancellation_by_others_is_none():
    handlers, cancelled = [], []
    loop = SimpleNamespace(
        add_signal_handler=lambda _, interrupt: handlers.append(interrupt),
        remove_signal_handler=lambda _: None,
    )
    task = SimpleNamespace(cancel=lambda: cancelled.append(True))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(asyncio.CancelledError), _ended_by_signals(loop, task):
            raise asyncio.CancelledError
        with pytest.raises(KeyboardInterrupt), _ended_by_signals(loop, task):
            handlers[-1]()
            assert cancelled == [True]
            with pytest.raises(KeyboardInterrupt):
                handlers[-1]()
            raise asyncio.CancelledError
    finally:
        signal.signal(signal.SIGINT, before)


# ---- files left behind --------------------------------------------------------------------------


#: Of versions of rich that leave a broken pipe to the caller, and of those that end the program themselves.
OLDER_RICH = "from rich.console import Console; Console._check_buffer = lambda self: self._write_buffer(); "


@pytest.mark.parametrize("rich", [OLDER_RICH, ""], ids=["older rich", "rich"])
def test_a_reader_that_went_away_is_no_traceback(rich):
    """As with every other command."""
    code = f"import sys; {rich}from uringblob.cli.main import main; sys.exit(main(['bench', '--list']))"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-u", "-c", code], stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert done.stderr == b""
    assert done.returncode == EXIT_FAILED
