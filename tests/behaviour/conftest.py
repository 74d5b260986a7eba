"""What the tests of behaviour share: chance that repeats itself."""

from __future__ import annotations

import os

import pytest


@pytest.fixture
def replay(request):
    """The seed of a test's dice: always the same, unless ``URINGBLOB_TEST_SEED`` is another.

    What the dice decide repeats itself; when threads and kernel act does not.
    """
    seed = os.environ.get("URINGBLOB_TEST_SEED", "1")
    print(f"replay: URINGBLOB_TEST_SEED={seed} python -m pytest '{request.node.nodeid}'")
    return seed
