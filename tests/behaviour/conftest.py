"""What the tests of behaviour share: chance that repeats itself."""

from __future__ import annotations

import pytest

import seeds


@pytest.fixture
def replay(request):
    """The seed of a test's dice: the commit's, unless ``URINGBLOB_TEST_SEED`` is another.

    What the dice decide repeats itself; when threads and kernel act does not.
    """
    print(seeds.replay_line(request.node.nodeid))
    return str(seeds.number())
