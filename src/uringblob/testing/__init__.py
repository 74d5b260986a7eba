"""The conformance suite, which checks a store against the contract, and a simulated disk and bucket.

::

    from uringblob.testing import check_blob_store

    def test_my_store():
        check_blob_store(MyStore)

Every check quotes the sentence of the contract that it checks.  With pytest, one test a check::

    @pytest.mark.parametrize("check", CHECKS, ids=str)
    def test_my_store(check):
        check_blob_store(MyStore, checks=[check])

The simulated disk shows what a power cut may leave, deterministic under one seed::

    disk, loop = SimDisk(seed, image=new_image()), SimLoop()
    store = loop.run(open_sim_store(disk, loop, rng=disk.rng))
    ...
    image = disk.crash(disk.rng)  # disk.all_crashes() yields every possible one

The simulated bucket loses, delays and repeats requests, for stores beyond one machine::

    bucket = SimBucket(seed)
    store = await AsyncRemoteBlobStore.open(bucket.client(chance(seed, 0.1)))
"""

from __future__ import annotations

from uringblob.testing.conformance.catalogue import CHECKS
from uringblob.testing.conformance.check import Check
from uringblob.testing.conformance.expect import ConformanceError
from uringblob.testing.conformance.runner import ConformanceReport, check_async_blob_store, check_blob_store
from uringblob.testing.sim.bucket import BucketFault, BucketRequest, SimBucket, SimClient, chance
from uringblob.testing.sim.disk import Fault, SimDisk
from uringblob.testing.sim.engine import SimEngine
from uringblob.testing.sim.history import History, HistoryError
from uringblob.testing.sim.image import Image
from uringblob.testing.sim.loop import SimLoop, SimStuck
from uringblob.testing.sim.store import new_image, open_sim_store

__all__ = [
    "CHECKS",
    "BucketFault",
    "BucketRequest",
    "Check",
    "ConformanceError",
    "ConformanceReport",
    "Fault",
    "History",
    "HistoryError",
    "Image",
    "SimBucket",
    "SimClient",
    "SimDisk",
    "SimEngine",
    "SimLoop",
    "SimStuck",
    "chance",
    "check_async_blob_store",
    "check_blob_store",
    "new_image",
    "open_sim_store",
]
