"""Signal handlers at any moment, in processes whose main thread they interrupt."""

from __future__ import annotations

import pytest

from behaviour import children

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("face", ["sync", "async"])
def test_five_thousand_reads_and_five_hundred_commits(store_path, engine, face):
    """A timer strikes every millisecond; every frame is right, there is no error and no hang."""
    assert children.run("behaviour.child_signals:interrupted", store_path, engine, face)


@pytest.mark.untraced("its handler raises at any moment")
def test_a_handler_that_raises_ends_only_the_call_it_interrupted(store_path, engine, replay):
    assert children.run("behaviour.child_signals:struck", store_path, engine, replay, 350)


@pytest.mark.untraced("its handler raises at any moment")
@pytest.mark.one_interpreter  # threading's own start() is not proof against a handler that raises
def test_opening_and_closing_interrupted(store_path, engine, replay):
    assert children.run("behaviour.child_signals:opened_and_closed", store_path, engine, replay, 25)


def test_a_handler_that_uses_the_synchronous_store(store_path, engine):
    outcomes = children.run("behaviour.child_signals:used_by_a_handler", store_path, engine, "sync")
    assert outcomes["worked"]


def test_a_handler_that_uses_the_asynchronous_store(store_path, engine):
    """What needs no loop works; nothing hangs or is torn."""
    outcomes = children.run("behaviour.child_signals:used_by_a_handler", store_path, engine, "async")
    assert sum(outcomes.values())
