"""A mutant as a real file: opened through a real engine, as a user would."""

from __future__ import annotations

import os

from uringblob import BlobCorrupt, BlobStoreError, FileBlobStore

#: A file that claims more is cut: a real disk may not have sparse files.
LENGTH_MAX = 1 << 30


def write_out(image, path) -> None:
    """Write a simulated image to a real file, holes for what is blank."""
    if os.path.exists(path):
        os.unlink(path)
    with open(path, "wb") as file:
        for block, data in sorted(image.blocks.items()):
            if (block + 1) * len(data) <= LENGTH_MAX:
                file.seek(block * len(data))
                file.write(data)
        file.truncate(min(image.size, LENGTH_MAX))


def on_a_real_file(image, path, engine, deeds) -> str:
    """Open, list, read and verify; first read-only, which changes no byte.  Returns what came of it."""
    write_out(image, path)
    try:
        before = os.stat(path)
        outcomes = [_look(path, engine, read_only=True)]
        assert os.stat(path).st_mtime_ns == before.st_mtime_ns, "a read-only opener wrote"
        outcomes.append(_look(path, engine, read_only=False))
    except Exception as error:
        raise AssertionError(f"{error!r}\nreplay: {engine} {deeds}") from error
    return outcomes[-1]


def _look(path, engine, *, read_only) -> str:
    try:
        store = FileBlobStore.open(path, engine=engine, read_only=read_only, create=False, buffers=2)
    except BlobStoreError as error:
        return type(error).__name__
    with store:
        room = bytearray(store.page_size)
        for guid in store.list_blobs()[:20]:
            try:
                store.read_blob(guid, room)
            except BlobCorrupt:
                continue
        store.verify()
        if not read_only:
            store.commit([(bytes(16), bytes(store.page_size))])
    return "opened"
