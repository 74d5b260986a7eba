"""The real engines' traces under the crash enumerator: every power cut that their order allows, judged."""

from __future__ import annotations

import pytest

import seeds
from sim.real_trace import judged

pytestmark = pytest.mark.one_interpreter


async def test_every_power_cut_under_a_real_engine(store_path, engine, capsys):
    images, shadow = await judged(store_path, engine, seeds.number())
    assert images > 50
    assert shadow.syncs >= 12
    if engine == "io_uring":
        assert shadow.linked >= 6
    with capsys.disabled():
        print(f"\n{engine}: {images} images judged, {shadow.syncs} flushes", end=" ")
