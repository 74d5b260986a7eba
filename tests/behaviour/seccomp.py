"""A seccomp filter that answers an errno to one of io_uring's system calls, or to one of its requests.

Set with ctypes by the process itself, for itself and for good.  The filter is classic BPF over
``struct seccomp_data``: the number of the call at byte 0, the low half of argument n at byte
``16 + 8 n``.  The numbers of io_uring's calls are the same on every architecture, so the filter
need not ask for it.
"""

from __future__ import annotations

import ctypes
import struct

IO_URING_SETUP, IO_URING_ENTER, IO_URING_REGISTER = 425, 426, 427
REGISTER_BUFFERS, REGISTER_BUFFERS2 = 0, 15

#: What is refused: the call, and which of its requests (``None``: all of them).
PLACES = {
    "setup": (IO_URING_SETUP, None),
    "enter": (IO_URING_ENTER, None),
    "register": (IO_URING_REGISTER, None),
    # A number that no kernel has: a filter that is on and changes nothing.
    "nobody": (0x3FFFFFFF, None),
    "register buffers": (IO_URING_REGISTER, (REGISTER_BUFFERS, REGISTER_BUFFERS2)),
}

_LOAD, _JUMP_EQUAL, _AND, _RETURN = 0x20, 0x15, 0x54, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_CALL_AT, _REQUEST_AT = 0, 16 + 8
_WITHOUT_REGISTERED_RING = 0x7FFFFFFF  # a flag that may ride on the request's number
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _SECCOMP_MODE_FILTER = 22, 38, 2


def _instruction(code, value, if_true=0, if_false=0):
    return struct.pack("=HBBI", code, if_true, if_false, value)


def program(place, errno):
    """Return the BPF that answers ``errno`` at ``place``, a key of ``PLACES``, and allows all else."""
    call, requests = PLACES[place]
    refuse, allow = _instruction(_RETURN, _ERRNO | errno), _instruction(_RETURN, _ALLOW)
    start = [_instruction(_LOAD, _CALL_AT), _instruction(_JUMP_EQUAL, call, 1, 0), allow]
    if requests is None:
        return b"".join([*start, refuse])
    tests = [_instruction(_LOAD, _REQUEST_AT), _instruction(_AND, _WITHOUT_REGISTERED_RING)]
    for left, request in zip(range(len(requests) - 1, -1, -1), requests, strict=True):
        tests.append(_instruction(_JUMP_EQUAL, request, left + 1, 0))
    return b"".join([*start, *tests, allow, refuse])


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p)]


def refuse(place, errno):
    """From now on, and until its end, this process gets ``errno`` at ``place``."""
    code = program(place, errno)
    memory = ctypes.create_string_buffer(code, len(code))
    filter_ = _Program(len(code) // 8, ctypes.addressof(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in [
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(filter_), 0, 0),
    ]:
        if libc.prctl(*arguments) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"prctl{arguments[:2]}")
