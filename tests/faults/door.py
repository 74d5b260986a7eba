"""The door to C with a disk of bad luck behind it: completions are replaced, rings are not harmed.

It stands where ``uringblob._native.lib`` stands, so production code has no branch for it and pays
nothing.  A request that shall fail goes to the kernel as one that fails by itself (a read from
descriptor -1), so that links break as they do in life, and its ``-EBADF`` becomes the answer
wanted.  What it moves nevertheless, the door moves itself before.
"""

from __future__ import annotations

import contextlib
import errno
import os
import types
from unittest import mock

from uringblob import _native
from uringblob.ring import Opcode, SqeFlags

KINDS = {
    **dict.fromkeys((Opcode.READ, Opcode.READV, Opcode.READ_FIXED, Opcode.READV_FIXED), "read"),
    **dict.fromkeys((Opcode.WRITE, Opcode.WRITEV, Opcode.WRITE_FIXED, Opcode.WRITEV_FIXED), "write"),
    Opcode.FSYNC: "sync",
    Opcode.FALLOCATE: "grow",
}
VECTORS = {Opcode.READV, Opcode.READV_FIXED, Opcode.WRITEV, Opcode.WRITEV_FIXED}
#: Made to fail by itself, and known by its answer: no such descriptor, or, on the registered file, no such opcode.
_DOOMED = {-errno.EBADF, -errno.EINVAL}
_NO_OPCODE = 255


class FaultyDoor:
    """``lib``, except that the requests of one store pass by ``disk`` (see the module)."""

    def __init__(self, lib, ffi, disk):
        self._lib = lib
        self._ffi = ffi
        self._disk = disk
        self._path = None
        self._seen = {}
        self._answers = {}
        self._ended = {}

    def __getattr__(self, name):
        return getattr(self._lib, name)

    def ub_register_files(self, core, fds, count):
        self._path = f"/proc/self/fd/{fds[0]}"
        self._seen, self._answers, self._ended = {}, {}, {}
        return self._lib.ub_register_files(core, fds, count)

    # --- in ------------------------------------------------------------------------------

    def ub_submit(self, core, ops, count):
        changed = self._ffi.new("struct ub_op[]", count)
        self._ffi.memmove(changed, ops, count * self._ffi.sizeof("struct ub_op"))
        chain = []
        for index in range(count):
            op = changed[index]
            linked = bool(op.flags & SqeFlags.IO_LINK)
            if op.user_data not in self._seen:
                self._seen[op.user_data] = self._meet(op, chain)
            if self._seen[op.user_data]:
                self._doom(op)
            chain = [*chain, op.user_data] if linked else []
        return self._lib.ub_submit(core, changed, count)

    def ub_stage(self, core, user_data, opcode, op_flags, buf_index, address, offset, length, check, want):
        op = types.SimpleNamespace(
            user_data=user_data, opcode=opcode, address=address, offset=offset, length=length
        )
        if self._meet(op, []):
            opcode, buf_index, check = _NO_OPCODE, 0, 0
        staged = self._lib.ub_stage(
            core, user_data, opcode, op_flags, buf_index, address, offset, length, check, want
        )
        assert staged > 0, "the disk was asked, and there is no room for the request"
        return staged

    def _doom(self, op):
        op.opcode, op.file, op.address, op.length = Opcode.READ, -1, 0, 0
        op.flags &= ~SqeFlags.FIXED_FILE & 0xFF

    def _meet(self, op, chain):
        """Ask the disk about ``op``, once; return whether it is doomed."""
        kind = KINDS.get(op.opcode)
        if kind is None:
            return False
        fault = self._disk.ask(kind)
        if kind == "sync":
            return self._meet_sync(op, fault, chain)
        size = sum(len(piece) for piece in self._pieces(op)) if kind in {"read", "write"} else 0
        if fault is None:
            if kind == "write":
                self._write_passes(op, b"".join(self._pieces(op)))
            return False
        moved = fault.moved(size) if fault.moved else self._disk.landed(size) if kind == "write" else 0
        if moved:
            self._move(op, kind, moved)
        self._answers[op.user_data] = -fault.errno if fault.errno else moved
        return True

    def _meet_sync(self, op, fault, chain):
        failed = fault is not None
        covered = self._disk.begin_sync() + [self._ended[each] for each in chain if each in self._ended]
        self._ended[op.user_data] = (covered, failed)
        if failed:
            self._answers[op.user_data] = -fault.errno
        return failed

    def _write_passes(self, op, data):
        self._ended[op.user_data] = self._disk.passing(self._path, op.offset, data)

    def _pieces(self, op):
        if op.opcode not in VECTORS:
            return [self._memory(op.address, op.length)]
        vector = self._ffi.cast("struct iovec *", op.address)
        return [self._memory(vector[i].iov_base, vector[i].iov_len) for i in range(op.length)]

    def _memory(self, address, size):
        return self._ffi.buffer(self._ffi.cast("char *", address), size)

    def _move(self, op, kind, size):
        """Move the first ``size`` bytes as the kernel would have, through the page cache."""
        fd = os.open(self._path, os.O_RDWR if kind == "write" else os.O_RDONLY)
        try:
            if kind == "write":
                data = b"".join(self._pieces(op))[:size]
                self._write_passes(op, data)
                os.pwrite(fd, data, op.offset)
                return
            data = os.pread(fd, size, op.offset)
            for piece in self._pieces(op):
                part, data = data[: len(piece)], data[len(piece) :]
                piece[: len(part)] = part
        finally:
            os.close(fd)

    # --- out -----------------------------------------------------------------------------

    def ub_reap(self, core, bytes_max):
        count = self._lib.ub_reap(core, bytes_max)
        for index in range(count):
            done = core.cqe_buffer[index]
            if done.result in _DOOMED and done.user_data in self._answers:
                done.result = self._answers[done.user_data]
                if isinstance(self._ended.get(done.user_data), tuple):
                    self._disk.sync_failed()
            self._end(self._ended.pop(done.user_data, None), done.result)
        return count

    def _end(self, ended, result):
        if isinstance(ended, tuple):
            covered, failed = ended
            if result == 0 or (failed and result != -errno.ECANCELED):
                self._disk.end_sync(covered, failed=failed)
        elif ended is not None:
            ended.done = True


@contextlib.contextmanager
def faulty_ring(disk):
    """While entered, the rings that are made go through ``disk``."""
    door = FaultyDoor(_native.lib, _native.ffi, disk)
    with mock.patch.object(_native, "lib", door):
        yield door
