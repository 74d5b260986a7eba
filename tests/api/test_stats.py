"""What ``stats()`` returns beside its fields."""

from __future__ import annotations

import os
import pickle

from uringblob import FileBlobStore, MemoryBlobStore, StoreStats


def test_amplification_is_the_files_length_over_what_is_live(store_path, engine):
    with FileBlobStore.open(store_path, page_size=4096, engine=engine) as store:
        empty = store.stats()
        store.commit([(bytes([number]) * 16, bytes(4096)) for number in range(100)])
        full = store.stats()
    assert (empty.amplification, empty.log_bytes) == (0.0, empty.slots_log * 4096)
    assert empty.log_bytes > 0
    assert full.amplification == os.stat(store_path).st_size / (100 * 4096) == store.stats().amplification
    assert pickle.loads(pickle.dumps(full)).amplification == full.amplification


def test_a_store_without_a_file_has_neither():
    store = MemoryBlobStore(page_size=4096)
    store.write_blob(bytes(16), bytes(4096))
    assert (store.stats().amplification, store.stats().log_bytes) == (0.0, 0)
    assert StoreStats().amplification == 0.0
