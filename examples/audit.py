"""An audit beside writers: what is read through one snapshot is the state of one moment.

Accounts are blobs, and threads move money between two of them, each transfer one atomic ``commit``.  The sum
of all accounts never changes.  But an audit that reads them one after the other sees some before a transfer
and some after it; one that reads a snapshot sees all of them as of one moment, and holds no writer up.

Run it: ``python examples/audit.py [STORE]``.  It prints how many sums were right, read from the store and
from snapshots, and what the snapshots held.
"""

from __future__ import annotations

import argparse
import os
import random
import struct
import tempfile
import threading
from typing import NamedTuple

from uringblob import BlobGuid, BlobStore, FileBlobStore

PAGE = 4096
ACCOUNTS = [BlobGuid(number.to_bytes(16, "big")) for number in range(40)]
BALANCE = 100
_NUMBER = struct.Struct("<q")


def frame(amount: int) -> bytes:
    """Return an account's frame."""
    return _NUMBER.pack(amount).ljust(PAGE, b"\0")


def balance(store: BlobStore, account: BlobGuid) -> int:
    """Return what is on ``account``, in a store or in a snapshot of one."""
    room = bytearray(store.page_size)
    store.read_blob(account, room)
    amount: int = _NUMBER.unpack_from(room)[0]
    return amount


def transfer(store: BlobStore, rng: random.Random, lock: threading.Lock) -> None:
    """Move an amount from one account to another, atomically."""
    source, target = rng.sample(ACCOUNTS, 2)
    amount = rng.randrange(1, 50)
    with lock:  # of the writers only: two of them may pick the same account
        taken, given = balance(store, source) - amount, balance(store, target) + amount
        store.commit([(source, frame(taken)), (target, frame(given))])


def total(store: BlobStore) -> int:
    """Return the sum of all accounts, read one after the other."""
    return sum(balance(store, account) for account in ACCOUNTS)


class Findings(NamedTuple):
    """What an audit found: how many sums were right, of how many, and the most that its snapshots held."""

    audits: int
    right_in_store: int
    right_in_snapshots: int
    held_bytes_max: int


def audit(store: BlobStore, audits: int, writers: int = 3) -> Findings:
    """Sum all accounts again and again while ``writers`` threads transfer."""
    store.commit([(account, frame(BALANCE)) for account in ACCOUNTS])
    over, lock = threading.Event(), threading.Lock()

    def write(seed: int) -> None:
        rng = random.Random(seed)  # noqa: S311 - repeatable
        while not over.is_set():
            transfer(store, rng, lock)

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(writers)]
    for thread in threads:
        thread.start()
    wanted, in_store, in_snapshots, held = BALANCE * len(ACCOUNTS), 0, 0, 0
    try:
        for _ in range(audits):
            in_store += total(store) == wanted
            with store.snapshot() as snapshot:
                in_snapshots += total(snapshot) == wanted
                held = max(held, store.stats().held_bytes)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    return Findings(audits, in_store, in_snapshots, held)


def main() -> None:
    """Audit a store, a new one in a temporary directory if none is named."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("store", nargs="?")
    parser.add_argument("--audits", type=int, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="uringblob-audit-", dir="/var/tmp") as directory:
        path = arguments.store or os.path.join(directory, "accounts.blobs")
        with FileBlobStore.open(path, page_size=PAGE) as store:
            found = audit(store, arguments.audits)
            stats = store.stats()
    print(f"{stats.commits} commits beside {found.audits} audits")
    print(f"read from the store: {found.right_in_store} of {found.audits} sums are right")
    print(f"read from snapshots: {found.right_in_snapshots} of {found.audits} sums are right")
    print(f"the snapshots held at most {found.held_bytes_max} bytes, and {stats.held_bytes} now")


if __name__ == "__main__":
    main()
