"""A tier's local file that is opened alone: what it says, what commands refuse, and what a change of it becomes."""

from __future__ import annotations

import json

import pytest

from cli.conftest import run  # noqa: F401 - a fixture
from tiered.test_machines import PAGE, A, B, C, frame, machines, read  # noqa: F401 - a fixture
from uringblob import AsyncFileBlobStore
from uringblob.cli.errors import EXIT_FAILED
from uringblob.errors import TierDiverged
from uringblob.tiered import attach

pytestmark = pytest.mark.one_interpreter


@pytest.fixture
async def path(machines):  # noqa: F811
    """The file of a tier that has A and B, and uploaded all."""
    async with await machines.open("one") as one:
        await one.commit([(A, frame(1)), (B, frame(2))])
    return machines.directory / "one"


def shown(run, path):  # noqa: F811
    return json.loads(run("info", path, "--json").out)["tier"]


async def test_info_says_that_it_is_a_tiers_and_what_is_not_uploaded(machines, path, run):  # noqa: F811
    assert shown(run, path) == {"frames": 2, "uploaded": True, "deletions": 0}
    assert "all is uploaded" in run("info", path).out.decode()
    one = await machines.open("one")
    machines.cut_off = True
    await one.commit([(C, frame(3))], [A])
    await one.aclose(flush=False)
    assert shown(run, path) == {"frames": 2, "uploaded": False, "deletions": 1}
    assert "1 deletions" in run("info", path).out.decode()


async def test_info_of_a_plain_file(disk_dir, run):  # noqa: F811
    async with AsyncFileBlobStore.open(disk_dir / "plain", page_size=PAGE) as store:
        await store.commit([(A, frame(1))])
    assert shown(run, disk_dir / "plain") is None


async def test_commands_do_not_change_it(path, run, tmp_path):  # noqa: F811
    source = tmp_path / "frame"
    source.write_bytes(frame(9))
    for command in (("put", path, source), ("rm", path, A)):
        done = run(*command)
        assert done.code == EXIT_FAILED
        assert "local file of a tier" in done.err
        assert "TieredBlobStore" in done.err
    assert shown(run, path)["uploaded"]


async def change_alone(path):
    async with AsyncFileBlobStore.open(path) as alone:
        await alone.commit([(B, frame(7))], [A])


async def test_what_is_written_in_it_alone_is_uploaded_and_what_is_deleted_comes_back(machines, path):  # noqa: F811
    """Also after a clean end, after which the stores are not compared."""
    await change_alone(path)
    async with await machines.open("one", max_local_bytes=2 * PAGE) as one:
        assert [await read(one, A), await read(one, B)] == [1, 7]
        await one.durable_remotely()
        await one.commit([(C, frame(3))])  # evicts
        assert [await read(one, A), await read(one, B)] == [1, 7]
    async with await machines.open("two") as two:
        assert [await read(two, A), await read(two, B)] == [1, 7]


async def test_what_is_written_in_it_alone_is_not_dropped_for_another_machines(machines, path):  # noqa: F811
    await change_alone(path)
    async with await machines.open("two") as two:
        await two.commit([(C, frame(3))])
    with pytest.raises(TierDiverged):
        await machines.open("one")


async def test_without_the_group_number_it_is_lost(machines, path, monkeypatch):  # noqa: F811
    """The safety taken out: a change of the file alone after a clean end is not noticed."""
    monkeypatch.setattr(attach.TieRecord, "is_clean", lambda self, _: self.clean)
    await change_alone(path)
    async with await machines.open("one") as one:
        await one.durable_remotely()
    async with await machines.open("two") as two:
        assert await read(two, B) == 2
