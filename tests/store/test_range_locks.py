"""The locks by which processes know of each other, each open file here being a process."""

from __future__ import annotations

import errno
import os

import pytest

from uringblob import FileBlobStore
from uringblob.store import range_locks
from uringblob.store.range_locks import RangeLocks

pytestmark = pytest.mark.one_interpreter

PAGE = 4096


@pytest.fixture
def open_locks(tmp_path):
    path, fds = tmp_path / "file", []
    path.touch()

    def open_one(flags=os.O_RDONLY):
        fds.append(os.open(path, flags))
        return RangeLocks(fds[-1])

    yield open_one
    for fd in fds:
        os.close(fd)


@pytest.fixture
def writer(open_locks):
    return open_locks(os.O_RDWR)


def test_a_reader_learns_what_the_writer_has_announced(writer, open_locks):
    reader = open_locks()
    assert reader.ask() is None
    for seq in (1, 2, 700):
        writer.announce(seq)
        assert reader.ask() == writer.announced == seq
    writer.close()
    assert reader.ask() is None


def test_a_group_is_free_of_readers_when_it_is_announced_and_none_is_below(writer, open_locks):
    one, two = open_locks(), open_locks()
    assert writer.none_between(0, 5)  # nothing is announced: none begins
    writer.announce(5)
    assert writer.none_between(0, 5)
    assert not writer.none_between(0, 6)  # one may begin at 5 now
    assert one.register(0)
    assert not writer.none_between(0, 1)  # it may read anything
    one.register(5)
    one.release(0)
    two.register(4)
    assert [writer.none_between(0, seq) for seq in (4, 5)] == [True, False]
    assert writer.registered() == [4, 5]
    two.close()
    assert writer.none_between(0, 5)
    assert writer.registered() == [5]


def test_only_states_that_show_a_slot_matter(writer, open_locks):
    reader = open_locks()
    writer.announce(9)
    reader.register(5)
    assert [writer.none_between(low, high) for low, high in ((1, 5), (1, 6), (5, 6), (6, 9))] == [
        True,
        False,
        False,
        True,
    ]
    assert not writer.none_between(6, 10), "one may begin at 9 now"
    reader.register(0)
    assert not writer.none_between(6, 9), "it may come to any state"


def test_readers_that_begin_are_asked_for_first(writer, open_locks, monkeypatch):
    """One that has its state by the first question lets go of the byte of those that begin before the second."""
    reader = open_locks()
    writer.announce(9)
    reader.register(0)
    real, asked = range_locks.fcntl.fcntl, []

    def fcntl(fd, command, argument):
        answer = real(fd, command, argument)
        if command == range_locks._GET and not asked:
            asked.append(argument)
            reader.register(7)
            reader.release(0)
        return answer

    monkeypatch.setattr(range_locks.fcntl, "fcntl", fcntl)
    assert not writer.none_between(6, 9)
    assert asked


def test_neighbouring_states_of_one_reader_are_listed_each(writer, open_locks):
    one, two = open_locks(), open_locks()
    for seq in (7, 8, 9):
        one.register(seq)
    two.register(8)
    two.register(40)
    assert writer.registered() == [7, 8, 9, 40]
    one.release(8)
    assert writer.registered() == [7, 8, 9, 40]
    two.release(8)
    assert writer.registered() == [7, 9, 40]


def test_a_refused_announcement_leaves_readers_where_they_are(writer, open_locks, monkeypatch):
    writer.announce(5)
    real = range_locks.fcntl.fcntl

    def refusing(fd, command, argument):
        if command == range_locks._SET:
            raise OSError(errno.ENOLCK, "no locks")
        return real(fd, command, argument)

    monkeypatch.setattr(range_locks.fcntl, "fcntl", refusing)
    writer.announce(6)
    assert (writer.announced, writer.refused) == (5, errno.ENOLCK)
    assert not writer.none_between(0, 6), "a reader that begins now begins at 5"
    reader = open_locks()
    assert reader.ask() == 5
    assert not reader.register(5)
    monkeypatch.undo()
    writer.announce(7)
    assert (writer.announced, writer.refused) == (7, 0)


def test_a_question_that_is_not_answered_keeps_everything(writer, monkeypatch):
    writer.announce(5)

    def dead(*_):
        raise OSError(errno.EIO, "dead")

    monkeypatch.setattr(range_locks.fcntl, "fcntl", dead)
    assert not writer.none_between(0, 5)
    assert writer.registered() == []


def test_without_a_file_there_are_none():
    locks = RangeLocks(-1)
    locks.announce(3)
    assert not locks.usable
    assert locks.none_between(0, 9)
    assert locks.ask() is None
    assert not locks.register(3)
    locks.close()


@pytest.mark.unobserved("the monitor asks for readers, too")
def test_a_group_costs_one_announcement_and_one_question(store_path, engine, monkeypatch):
    calls = []
    real = range_locks.fcntl.fcntl

    def counted(fd, command, argument):
        calls.append(command)
        return real(fd, command, argument)

    with FileBlobStore.open(store_path, engine=engine, page_size=PAGE) as store:
        for _ in range(4):
            store.commit([(bytes(16), bytes(PAGE))])
        monkeypatch.setattr(range_locks.fcntl, "fcntl", counted)
        for _ in range(10):
            store.commit([(bytes(16), bytes(PAGE))])
        assert calls.count(range_locks._SET) == 10
        assert calls.count(range_locks._GET) == 10
        calls.clear()
        for number in range(1, 11):
            store.commit([(number.to_bytes(16, "big"), bytes(PAGE))])
        assert len(calls) <= 11, "nothing was replaced, and readers are asked for"
        monkeypatch.undo()
