"""A call of the synchronous face, struck between any two steps; no thread is needed to show it."""

from __future__ import annotations

import pytest

from uringblob.sync.call import Call


class Struck(BaseException):
    """What a signal handler raises."""


async def nothing():
    """Never begun."""


def test_a_handlers_exception_comes_first_and_has_the_calls_own_as_its_cause():
    call = Call(nothing)
    refusal = ValueError("the store's")
    posts = []

    def post(posted):
        posts.append(posted)
        if len(posts) == 1:
            raise Struck("the handler's")
        posted.refuse(refusal)

    with pytest.raises(Struck, match="the handler's") as raised:
        call.see_through(post)
    assert posts == [call, call], "a struck caller posts again: the store's thread decides"
    assert raised.value.__cause__ is refusal


def test_a_cause_that_the_handler_gave_stays():
    call = Call(nothing)
    own = KeyError("the handler's own")

    def post(posted):
        posted.refuse(ValueError("the store's"))
        raise Struck from own

    with pytest.raises(Struck) as raised:
        call.see_through(post)
    assert raised.value.__cause__ is own


def test_a_handler_may_strike_the_except_clause_too():
    """Between the exception and the line that keeps it another handler raises: it is kept instead."""

    strikes = [Struck("in the except clause")]

    class StruckTwice(Call):
        kept = None

        @property
        def struck(self):
            return self.kept

        @struck.setter
        def struck(self, error):
            if error is not None and strikes:
                raise strikes.pop()
            self.kept = error

    call = StruckTwice(nothing)
    posts = []

    def post(posted):
        posts.append(posted)
        if len(posts) == 1:
            raise Struck("in the call")
        posted.refuse(None)

    with pytest.raises(Struck, match="in the except clause") as raised:
        call.see_through(post)
    assert str(raised.value.__context__) == "in the call"
    assert len(posts) == 2, "it did not leave before the call had ended"


def test_a_call_is_refused_once():
    call = Call(nothing)
    first = ValueError("first")
    call.refuse(first)
    call.refuse(ValueError("second"))
    with pytest.raises(ValueError, match="first"):
        call.see_through(lambda posted: None)


def test_a_slow_listener_is_called_with_the_newest_steps_and_the_last(monkeypatch):
    """What it has not been called with yet is bounded: a verification of a million blobs queued a million steps."""
    monkeypatch.setattr("uringblob.sync.call.UNHEARD_MAX", 3)
    heard = []
    call = Call(nothing, listener=lambda done, total: heard.append((done, total)))

    def post(posted):
        for done in range(1, 1001):
            posted.tell(done, 1000)
            assert len(posted._news) <= 3
        posted.refuse(None)

    call.see_through(post)
    assert heard == [(998, 1000), (999, 1000), (1000, 1000)]


def test_an_end_takes_no_memory_to_say():
    """It may be said as often as wanted, and the caller has come to it or not."""
    call = Call(nothing)

    def post(posted):
        for _ in range(3):
            posted.ring()

    assert call.see_through(post) is None
    call.ring()
