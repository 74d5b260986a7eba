"""A close that a signal handler strikes, at each of its lines.

Found by stress: a handler that struck between "the thread is to be waited for" and "it was asked to
leave" left the caller waiting for ever for a thread that nobody had asked.
"""

from __future__ import annotations

import contextlib
import itertools
import threading

import pytest

from fake_core import open_fake
from striking import Handler
from uringblob.sync import call
from uringblob.sync import file_store as facade
from uringblob.sync import loop_thread as completion_loop
from uringblob.sync import store_handle as pilot

PATIENCE = 60  # seconds until a test that hangs fails
OURS = {module.__file__ for module in (call, completion_loop, facade, pilot)}


class Struck(BaseException):
    """What the signal handler raises."""


def strike():
    raise Struck


def close_struck(store, line, outcome):
    handler = Handler(OURS, strike)
    with contextlib.suppress(Struck):
        handler.at(line, store.close)
    store.close()  # it may have been struck before it began
    outcome.append(handler.struck)


@pytest.mark.untraced("it has a tracer of its own")
def test_a_close_struck_at_any_line_ends_and_so_does_the_thread():
    for line in itertools.count():
        store, core = open_fake()
        loop = store._handle._loop
        outcome = []
        closer = threading.Thread(target=close_struck, args=(store, line, outcome), daemon=True)
        closer.start()
        closer.join(PATIENCE)
        assert not closer.is_alive(), f"struck at line event {line}, close() waits for ever"
        loop.thread.join(PATIENCE)
        assert not loop.thread.is_alive(), f"struck at line event {line}, the thread was left alone"
        assert core.log in (["closed"], ["flush", "closed"]), f"struck at line event {line}: {core.log}"
        if not outcome[0]:
            break
    assert core.log == ["flush", "closed"]
    assert line > 40


def open_struck(line, outcome):
    handler = Handler(OURS, strike)
    opened = []
    with contextlib.suppress(Struck):
        handler.at(line, lambda: opened.append(open_fake()[0]))
    for store in opened:
        store.close()
    outcome.append(handler.struck)


# A loop that was made and not yet started is closed by its finalizer, which warns; here warnings are errors.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.untraced("it has a tracer of its own")
def test_an_opening_struck_at_any_line_leaves_no_thread():
    before = set(threading.enumerate())
    for line in itertools.count():
        outcome = []
        opener = threading.Thread(target=open_struck, args=(line, outcome), daemon=True)
        opener.start()
        opener.join(PATIENCE)
        assert not opener.is_alive(), f"struck at line event {line}, the opening waits for ever"
        for thread in set(threading.enumerate()) - before:
            thread.join(PATIENCE)
            assert not thread.is_alive(), f"struck at line event {line}, {thread} was left alone"
        if not outcome[0]:
            break
    assert line > 40
