"""File systems without O_DIRECT: the store goes through the page cache, and says so."""

from __future__ import annotations

import errno

import pytest

from behaviour.mounts import MIB, ext4, mounted
from behaviour.work import exercise_and_reopen
from uringblob import AsyncFileBlobStore, EngineUnavailable

pytestmark = pytest.mark.usefixtures("needs_root")

#: Each refuses in a way of its own; the errno is ``open``'s, where it refuses at all.
KINDS = {
    "ramfs": (lambda place: mounted(place, "ramfs"), errno.EINVAL),
    "ext4 that journals data": (lambda place: ext4(place, 16 * MIB, "data=journal"), None),
}


@pytest.fixture(params=KINDS)
def place(request, disk_dir):
    make, number = KINDS[request.param]
    with make(disk_dir / "place") as directory:
        yield directory, number


async def test_left_to_itself_the_store_is_buffered(place, engine):
    directory, _ = place
    stats = await exercise_and_reopen(directory / "store", page_size=4096, engine=engine)
    assert (stats.engine, stats.direct_io) == (engine, False)


async def test_direct_io_required_is_an_error_with_the_cure(place, engine):
    directory, number = place
    path = directory / "store"
    async with AsyncFileBlobStore.open(path, page_size=4096):
        pass
    before = path.read_bytes()
    with pytest.raises(EngineUnavailable) as caught:
        await AsyncFileBlobStore.open(path, engine=engine, direct=True)
    assert (caught.value.stage, caught.value.errno) == ("direct", number)
    assert str(path) in str(caught.value)
    assert "direct=None" in str(caught.value)
    assert path.read_bytes() == before


async def test_tmpfs(disk_dir, engine):
    """With O_DIRECT from Linux 6.6 on, without before: either way it works and says which."""
    with mounted(disk_dir / "tmpfs", "tmpfs", "size=16M") as directory:
        stats = await exercise_and_reopen(directory / "store", page_size=4096, engine=engine)
        try:
            async with AsyncFileBlobStore.open(directory / "store", engine=engine, direct=True):
                required = True
        except EngineUnavailable:
            required = False
    assert stats.direct_io is required
