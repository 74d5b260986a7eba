"""Everything that is measured: the store, the bare ring, fio, and peers."""
