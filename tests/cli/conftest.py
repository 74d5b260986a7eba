"""A store to command, and commands called in this process."""

from __future__ import annotations

import io
import sys

import pytest

from uringblob import BlobGuid, FileBlobStore
from uringblob.cli.main import main

PAGE = 4096


@pytest.fixture
def store(store_path):
    """A store of three frames; ``store.guids`` names them."""
    FileBlobStore.open(store_path, page_size=PAGE).close()
    return store_path


@pytest.fixture
def guids(store):
    names = [BlobGuid(bytes([n]) * 16) for n in range(3)]
    with FileBlobStore.open(store) as opened:
        opened.commit([(name, bytes([n]) * PAGE) for n, name in enumerate(names)])
    return names


class CommandResult:
    """The exit code and the output of a command."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def run(capfdbinary, monkeypatch):
    """Run a command line in this process; ``stdin`` is what it reads."""

    def call(*argv, stdin=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        try:
            code = main([str(word) for word in argv])
        except SystemExit as end:
            code = end.code
        sys.stdout.flush()
        captured = capfdbinary.readouterr()
        return CommandResult(code, captured.out, captured.err.decode())

    return call
