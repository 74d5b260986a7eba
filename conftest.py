"""What every test shares: a path on a real disk, the engines, no leaks, no silent skips."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

import hypothesis
import pytest

import memlock
import seeds
from fault_rows import count_row, pytest_terminal_summary  # noqa: F401 - a fixture and a hook

REPOSITORY = Path(__file__).resolve().parent
#: A skip whose reason begins so is right everywhere: what is tested does not exist here.
NOT_APPLICABLE = "n/a:"
LEAK_WAIT_SECONDS = 10

# Shared disks stall now and then; no test asserts a timing, so neither may hypothesis.
_CHECKS_OFF = [hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.function_scoped_fixture]
# Not derandomized, as it would be by itself where CI is set: `pytest_configure` gives it the commit's seed.
hypothesis.settings.register_profile(
    "here", deadline=None, suppress_health_check=_CHECKS_OFF, derandomize=False
)
hypothesis.settings.register_profile(
    "ci", parent=hypothesis.settings.get_profile("here"), database=None, print_blob=True
)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "here")

# A child process that dies of a fault says where, as this one does.
os.environ.setdefault("PYTHONFAULTHANDLER", "1")


# ---- what this machine can do -----------------------------------------------------------------


@functools.cache
def why_no_uring() -> str:
    """Return why io_uring cannot run here, or '' if it can."""
    from uringblob import _native

    if getattr(_native, "lib", None) is None:
        return f"the extension is missing: {getattr(_native, 'unavailable_reason', 'not yet')}"
    from uringblob.ring import Ring

    try:
        Ring(8).close()
    except Exception as error:
        return f"io_uring is refused here: {error}"
    return ""


def has_direct_io(directory: Path) -> bool:
    """Tell whether files in ``directory`` can be opened with O_DIRECT."""
    flag = getattr(os, "O_DIRECT", 0)
    if not flag:
        return False
    descriptor, name = tempfile.mkstemp(dir=directory)
    os.close(descriptor)
    try:
        os.close(os.open(name, os.O_RDWR | flag))
    except OSError:
        return False
    finally:
        os.unlink(name)
    return True


@pytest.fixture(scope="module", autouse=True)
def _collector_looks_at_what_is_new():
    """The collector passes over what was there before this module.

    Hundreds of tests collect garbage, and a worker that keeps 5,000 tests took 0.3 s each time: those
    of ``store/test_dropped.py`` 81 s together instead of 7.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def locked_memory():
    """Room for a bare ring's buffers, which no store of another test takes."""
    with memlock.reserve_opened():
        yield


# ---- no silent skips --------------------------------------------------------------------------


def pytest_addoption(parser):
    parser.addoption(
        "--no-skips",
        action="store_true",
        default=bool(os.environ.get("URINGBLOB_NO_SKIPS")),
        help="a skipped test is a failure, unless its reason begins with 'n/a:'; in force only as root "
        "with io_uring, where nothing is missing (also: URINGBLOB_NO_SKIPS=1)",
    )


@pytest.hookimpl(tryfirst=True)  # before hypothesis looks at its own option
def pytest_configure(config):
    os.environ[seeds.VARIABLE] = str(seeds.number())  # children and workers count from the same
    if config.getoption("--hypothesis-seed") is None:
        config.option.hypothesis_seed = str(seeds.first())
    memlock.keep_reserve()
    config.skips_forbidden = False
    if not config.getoption("--no-skips"):
        return
    missing = why_no_uring() or ("" if os.geteuid() == 0 else "not root")
    config.skips_forbidden = not missing
    config.skips_note = f"skips are {'allowed: ' + missing if missing else 'failures'}"


def pytest_report_header(config):
    reason = why_no_uring()
    lines = [f"io_uring: {reason or 'works'}", f"seeds: {seeds.VARIABLE}={seeds.number()} replays this run"]
    return lines + ([config.skips_note] if config.getoption("--no-skips") else [])


def pytest_sessionstart(session):
    """A build that promised the extension and lacks it fails as a whole, not test by test."""
    from monitor import install

    install.install_here()
    if os.environ.get("URINGBLOB_EXT") == "require":
        from uringblob import _native

        if _native.lib is None:
            raise pytest.UsageError(f"URINGBLOB_EXT=require, but {_native.unavailable_reason}")


def pytest_sessionfinish(session):
    from monitor import install

    install.uninstall()


#: Folders and files that ask the protocol, counts, or the words of a command, as the marker ``one_interpreter`` says.
ONE_INTERPRETER = (
    *("tests/store/index/", "tests/store/log/", "tests/store/opening/", "tests/cli/doctor/"),
    *("tests/remote/", "tests/tiered/", "tests/behaviour/test_readers.py", "tests/behaviour/test_openers.py"),
    *("tests/store/test_vacuum.py", "tests/store/test_range_locks.py", "tests/cli/test_commands.py"),
    *("tests/test_shared_store_example.py", "tests/test_holt.py", "tests/engines/test_next_data.py"),
    *(
        f"tests/cli/test_{name}.py"
        for name in "stdio json_errors manners page imports bench copies atomic_file".split()
    ),
    *(
        f"tests/store/test_{name}.py"
        for name in "in_turns allocator format verify identity snapshot metadata max_bytes".split()
    ),
    *(
        f"tests/behaviour/test_{name}.py"
        for name in "attacked backup_kill frame_sizes golden no_direct_io portable read_only".split()
    ),
    *("tests/api/test_backup.py", "tests/test_messages.py", "tests/test_seccomp_profile.py"),
)


@pytest.hookimpl(tryfirst=True)  # before -m deselects
def pytest_collection_modifyitems(items):
    """The longest tests begin first, so that no worker is left alone with one at the end.

    Under coverage, leave out tests whose exceptions would strike the tracer itself.

    Seen with coverage 7.17: a handler that raises while the tracer holds its lock leaves the lock
    taken, and the next new file that is traced waits for it for ever.
    """
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
    for item in items:
        if item.nodeid.startswith(ONE_INTERPRETER):
            item.add_marker(pytest.mark.one_interpreter)
    if sys.gettrace() is None:
        return
    for item in items:
        if (untraced := item.get_closest_marker("untraced")) is not None:
            item.add_marker(pytest.mark.skip(reason=f"{NOT_APPLICABLE} under a tracer: {untraced.args[0]}"))


def _forbid_skip(report, config) -> None:
    if not (report.skipped and config.skips_forbidden) or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not reason.removeprefix("Skipped: ").startswith(NOT_APPLICABLE):
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} may not skip on this machine (--no-skips): {reason}"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    _forbid_skip(report, item.config)
    if report.failed:
        report.sections.append(("seed", seeds.replay_line(item.nodeid)))


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector):
    outcome = yield
    _forbid_skip(outcome.get_result(), collector.config)


# ---- no leaks ---------------------------------------------------------------------------------


def _open_files() -> dict[int, str]:
    """Return what each descriptor of this process is, where the system tells."""
    found = {}
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir("/proc/self/fd"):
            # The descriptor of this very listing is gone by now.
            with contextlib.suppress(FileNotFoundError):
                found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


def _threads() -> set[threading.Thread]:
    """Threads that can be waited for; what stands for one that ``_thread`` started cannot, and stays."""
    return {t for t in threading.enumerate() if not isinstance(t, threading._DummyThread)}


def _files_beyond(before: dict[int, str]) -> dict[int, str]:
    return {fd: what for fd, what in _open_files().items() if before.get(fd) != what}


def _leaks(threads_before, files_before) -> list[str]:
    for thread in _threads() - threads_before:
        thread.join(LEAK_WAIT_SECONDS)
    threads = _threads() - threads_before
    # An engine's thread, which cannot be joined here, keeps a descriptor until it has left.
    deadline = time.monotonic() + LEAK_WAIT_SECONDS
    while (files := _files_beyond(files_before)) and time.monotonic() < deadline:
        time.sleep(0.001)
    return [f"thread {t.name}" for t in threads] + [f"descriptor {fd}: {what}" for fd, what in files.items()]


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_setup(item):
    item.leak_baseline = _threads(), _open_files()
    yield


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_teardown(item, nextitem):
    """After a test and all its fixtures, threads and descriptors are what they were before."""
    outcome = yield
    if outcome.excinfo or item.get_closest_marker("leaks") or not hasattr(item, "leak_baseline"):
        return
    if _new_things(item.leak_baseline):
        # Only now: a collection takes longer than most tests.
        gc.collect()
        leaks = _leaks(*item.leak_baseline)
        if leaks:
            outcome.force_exception(pytest.fail.Exception(f"left behind: {', '.join(leaks)}", pytrace=False))


def _new_things(baseline) -> bool:
    threads, files = baseline
    return bool(_threads() - threads) or bool(_open_files().items() - files.items())


# ---- the order monitor ------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def order_monitor(request):
    """Every store of every test is watched, in child processes too: see ``tests/monitor/order.py``."""
    from monitor import census, install

    unobserved = request.node.get_closest_marker("unobserved")
    if unobserved and not unobserved.args:
        pytest.fail("unobserved, and no reason given")
    count = census.Count()
    with install.switched_off() if unobserved else contextlib.nullcontext():
        yield
    wrong = install.take()
    count.add_to(request.node)
    if wrong:
        pytest.fail("\n".join(wrong), pytrace=False)


# ---- handlers that raise ----------------------------------------------------------------------


@pytest.fixture(autouse=True)
def no_foreign_callbacks(request):
    """Where a handler raises at any moment, the collector calls nobody back.

    Hypothesis times collections in a callback; what strikes there reaches no `except`, and is a warning.
    """
    if request.node.get_closest_marker("untraced") is None:
        yield
        return
    callbacks = gc.callbacks[:]
    gc.callbacks.clear()
    yield
    gc.callbacks[:] = callbacks


# ---- fixtures ---------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def disk_root(tmp_path_factory):
    """A directory on a file system with O_DIRECT where there is one (URINGBLOB_TEST_DIR decides)."""
    named = os.environ.get("URINGBLOB_TEST_DIR")
    places = [named] if named else [str(tmp_path_factory.getbasetemp()), "/var/tmp", str(REPOSITORY)]
    usable = [place for place in places if os.access(place, os.W_OK)]
    place = next((place for place in usable if has_direct_io(Path(place))), usable[0])
    root = Path(tempfile.mkdtemp(prefix="uringblob-test-", dir=place))
    # Children that gave up root reach the stores inside.
    root.chmod(0o755)
    yield root
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def disk_dir(disk_root):
    """An empty directory of this test's own on that disk; it is gone after the test."""
    directory = Path(tempfile.mkdtemp(dir=disk_root))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def store_path(disk_dir):
    """The path of a store that does not exist yet, on a real disk."""
    return str(disk_dir / "store.blobs")


@pytest.fixture(scope="session")
def uring_missing():
    """Why io_uring cannot run here, or ''."""
    return why_no_uring()


@pytest.fixture
def needs_uring(uring_missing):
    """Skip where io_uring cannot run."""
    if uring_missing:
        pytest.skip(uring_missing)


@pytest.fixture
def needs_root():
    """Skip where the test may not mount, drop privileges or raise limits."""
    if os.geteuid() != 0:
        pytest.skip("needs root")


@pytest.fixture
def needs_direct(disk_root):
    """Skip where no file system at hand has O_DIRECT."""
    if not has_direct_io(disk_root):
        pytest.skip(f"no O_DIRECT in {disk_root}; set URINGBLOB_TEST_DIR")


@pytest.fixture(params=["io_uring", "pread"])
def engine(request, uring_missing):
    """Each engine's name in turn."""
    if request.param == "io_uring" and uring_missing:
        pytest.skip(uring_missing)
    return request.param


@pytest.fixture
def page_size(request):
    """4096, so that tests are quick; parametrize indirectly for other frame sizes."""
    return getattr(request, "param", 4096)
