"""A repair finds in any store that opens what opening finds, by another way; and the same without superblocks."""

from __future__ import annotations

import random

import pytest

import seeds
from salvage.damage import PAGE, Saved
from sim.lives import Life, small_log, used_image
from sim.victim import see

pytestmark = pytest.mark.one_interpreter

LIVES = 12
IMAGES_OF_EACH = 30


def crash_images(seed):
    """Yield what a power cut leaves at some moments of a life, compactions among them."""
    rng = random.Random(seed)
    life = Life(used_image(16), rng, compactions=0.15, calls=25)
    life.run()
    for moment in rng.sample(life.moments, min(IMAGES_OF_EACH, len(life.moments))):
        yield moment.image


@pytest.mark.parametrize("number", range(LIVES))
def test_what_opens_is_saved_as_it_opens(number, tmp_path, count_row):
    images = 0
    with small_log(segment_bytes=4 * PAGE, records=random.Random(number).choice([None, 2]), seed=number):
        for image in crash_images(seeds.first() + number):
            images += 1
            raw = image.read(0, image.size)
            opened = see(image)
            for lost in (0, PAGE, 2 * PAGE):
                saved = Saved(str(tmp_path / "store"), bytes(lost) + raw[lost:])
                assert saved.frames == opened.found, f"image {images}, {lost} bytes lost"
                assert not saved.report.lost
                assert not saved.report.gaps
    count_row(2, **{"images repaired": images})
