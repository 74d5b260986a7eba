"""Does a store keep the contract?  For those who write one, and for ours.

::

    from uringblob.testing import check_blob_store

    def test_my_store():
        check_blob_store(MyStore)

Every check names the sentence of the contract that it asks about.  With pytest, one test a check::

    @pytest.mark.parametrize("check", CHECKS, ids=str)
    def test_my_store(check):
        check_blob_store(MyStore, checks=[check])
"""

from __future__ import annotations

from uringblob.testing.catalogue import CHECKS
from uringblob.testing.check import Check, ConformanceError
from uringblob.testing.runner import ConformanceReport, check_async_blob_store, check_blob_store

__all__ = [
    "CHECKS",
    "Check",
    "ConformanceError",
    "ConformanceReport",
    "check_async_blob_store",
    "check_blob_store",
]
