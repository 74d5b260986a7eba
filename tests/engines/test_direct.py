"""O_DIRECT is taken where it is proved to work, and nothing is left behind where it is not."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile

import pytest

from uringblob import _native
from uringblob.engines import direct
from uringblob.engines.direct import DirectRefused, disable_direct, enable_direct, require_direct

BLOCK = 4096
O_DIRECT = getattr(os, "O_DIRECT", 0)


@pytest.fixture
def fd(store_path, disk_dir):
    """An open file of two blocks; afterwards its directory holds nothing else."""
    descriptor = os.open(store_path, os.O_RDWR | os.O_CREAT, 0o600)
    os.write(descriptor, bytes(2 * BLOCK))
    yield descriptor
    os.close(descriptor)
    assert os.listdir(disk_dir) == [os.path.basename(store_path)]


def is_direct(fd):
    return bool(fcntl.fcntl(fd, fcntl.F_GETFL) & O_DIRECT)


def refuse(code):
    def call(*_args, **_kwargs):
        raise OSError(code, os.strerror(code))

    return call


@pytest.mark.parametrize("read_only", [False, True])
def test_it_is_switched_on_where_it_works(needs_direct, fd, store_path, read_only):
    decision = enable_direct(fd, store_path, read_only=read_only)
    assert decision.on
    assert decision.reason == ""
    assert decision.memory_align in {2**power for power in range(2, 13)}
    assert is_direct(fd)
    disable_direct(fd)
    assert not is_direct(fd)


def test_an_empty_file_and_a_read_only_descriptor_can_be_proved(needs_direct, disk_dir):
    path = disk_dir / "empty"
    path.touch()
    descriptor = os.open(path, os.O_RDONLY)
    assert enable_direct(descriptor, str(path), read_only=True).on
    os.close(descriptor)


def test_a_relative_path_and_a_link_lead_to_the_stores_directory(needs_direct, fd, store_path, monkeypatch):
    tried = []
    monkeypatch.setattr(direct, "_try_write", tried.append)
    monkeypatch.chdir(os.path.dirname(store_path))
    enable_direct(fd, os.path.basename(store_path), read_only=False)
    with tempfile.TemporaryDirectory() as elsewhere:
        os.symlink(store_path, os.path.join(elsewhere, "link"))
        enable_direct(fd, os.path.join(elsewhere, "link"), read_only=False)
    assert tried == [os.path.realpath(os.path.dirname(store_path))] * 2


def test_without_a_nameless_file_a_named_one_is_made_and_removed(needs_direct, fd, store_path, monkeypatch):
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    assert enable_direct(fd, store_path, read_only=False).on


@pytest.mark.parametrize("call", ["pwrite", "open"])
@pytest.mark.parametrize("code", sorted(direct._NO_TRIAL))
def test_where_no_trial_write_is_possible_the_read_decides(
    needs_direct, fd, store_path, monkeypatch, call, code
):
    monkeypatch.setattr(os, call, refuse(code))
    assert enable_direct(fd, store_path, read_only=False).on


def test_a_descriptor_for_writing_only_is_believed_after_the_trial_write(needs_direct, fd, store_path):
    """It cannot be read, and no store has one: what the other file showed must do."""
    writing = os.open(store_path, os.O_WRONLY)
    try:
        assert enable_direct(writing, store_path, read_only=False).on
    finally:
        os.close(writing)


# ---- refusals -----------------------------------------------------------------------------------


def hide_flag(monkeypatch):
    monkeypatch.delattr(os, "O_DIRECT", raising=False)


def refuse_call(name, code):
    return lambda monkeypatch: monkeypatch.setattr(os, name, refuse(code))


def write_short(monkeypatch):
    monkeypatch.setattr(os, "pwrite", lambda _fd, data, _offset: len(data) - 512)


def refuse_flag(monkeypatch):
    real = fcntl.fcntl

    def call(fd, command, argument=0):
        if command == fcntl.F_SETFL and argument & O_DIRECT:
            raise OSError(errno.EINVAL, "no")
        return real(fd, command, argument)

    monkeypatch.setattr(fcntl, "fcntl", call)


class StatxAnswers:
    """The native library as far as alignment is concerned."""

    def __init__(self, rc, memory=0, offset=0):
        self.answer = rc, memory, offset

    def ub_dioalign(self, _fd, memory, offset):
        rc, memory[0], offset[0] = self.answer
        return rc


class FakeFfi:
    @staticmethod
    def new(_ctype):
        return [0]


def statx(*answer):
    def patch(monkeypatch):
        monkeypatch.setattr(_native, "ffi", FakeFfi)
        monkeypatch.setattr(_native, "lib", StatxAnswers(*answer))

    return patch


REFUSALS = {
    "no such flag": (hide_flag, "no O_DIRECT", 0),
    "the flag": (refuse_flag, "setting O_DIRECT was refused: EINVAL", errno.EINVAL),
    "opening": (refuse_call("open", errno.EIO), "opening a trial file was refused: EIO", errno.EIO),
    "writing": (refuse_call("pwrite", errno.EINVAL), "a direct write was refused: EINVAL", errno.EINVAL),
    "writing it all": (write_short, "4096 bytes wrote 3584", 0),
    "reading": (refuse_call("preadv", errno.EINVAL), "a direct read was refused: EINVAL", errno.EINVAL),
    "asked": (statx(0, 0, 0), "has no direct I/O", 0),
    "asked, offsets": (statx(0, 512, 0), "has no direct I/O", 0),
    "memory too coarse": (statx(0, 65536, 512), "aligned to 65536", 0),
    "offsets too coarse": (statx(0, 512, 16384), "offsets to 16384", 0),
}


@pytest.mark.parametrize(("hinder", "words", "code"), REFUSALS.values(), ids=REFUSALS)
def test_what_is_refused_is_named_and_undone(needs_direct, fd, store_path, monkeypatch, hinder, words, code):
    hinder(monkeypatch)
    decision = enable_direct(fd, store_path, read_only=False)
    assert not decision.on
    assert decision.memory_align == 1
    assert words in decision.reason
    assert not is_direct(fd)
    with pytest.raises(DirectRefused, match=words) as caught:
        require_direct(fd, store_path, read_only=False)
    assert caught.value.errno == code


@pytest.mark.parametrize(
    ("answer", "align"), [((0, 4, 512), 4), ((0, 4096, 4096), 4096), ((-errno.EOPNOTSUPP,), 4096)]
)
def test_the_alignment_is_what_the_file_system_says(needs_direct, fd, store_path, monkeypatch, answer, align):
    statx(*answer)(monkeypatch)
    assert enable_direct(fd, store_path, read_only=False).memory_align == align


def test_without_the_extension_the_alignment_is_the_safe_one(needs_direct, fd, store_path, monkeypatch):
    monkeypatch.setattr(_native, "lib", None)
    assert enable_direct(fd, store_path, read_only=False).memory_align == BLOCK


def test_disabling_what_is_not_on_does_nothing(fd, monkeypatch):
    disable_direct(fd)
    monkeypatch.delattr(os, "O_DIRECT", raising=False)
    disable_direct(fd)
