"""The table of states: it is the one in the docstring, it loses nothing, and every state can be reached and left."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifactfs.journal import states
from artifactfs.journal.states import Event, State, after

RESULTS = (Event.RECEIPT, Event.FAILURE, Event.REFUSAL, Event.OVERTAKEN)
WAITING = set(State) - {State.PUBLISHED}


def possible(state: State) -> dict[Event, State]:
    found = {}
    for event in Event:
        try:
            found[event] = after(state, event)
        except ValueError:
            continue
    return found


def test_the_table_is_the_documented_one():
    """Read back from the docstring, column by column: an empty cell cannot be."""
    assert states.__doc__
    lines = states.__doc__.splitlines()
    head = next(line for line in lines if line.startswith("event "))
    columns = {state: head.index(state.name) for state in State}
    assert head.split() == ["event", *(state.name for state in State)]
    for event in Event:
        row = next(line for line in lines if line.startswith(event.name + " "))
        written = {state: row[begin:].split(" ")[0] for state, begin in columns.items()}
        there = {state: possible(state)[event].name if event in possible(state) else "" for state in State}
        assert written == there, event


def test_what_cannot_be_is_refused():
    """With the names of both, for the log."""
    with pytest.raises(ValueError, match="start cannot be in the state open"):
        after(State.OPEN, Event.START)


def test_every_state_is_reached_and_none_is_a_trap():
    """From the first write to each state, and from each to the end."""
    reached = {State.OPEN}
    while new := {then for state in reached for then in possible(state).values()} - reached:
        reached |= new
    assert reached == set(State)
    for state in WAITING:
        assert after(state, Event.DISCARD) is State.PUBLISHED
        assert after(state, Event.WRITE) is State.OPEN
        # The user's retry, or nothing, and then a try that succeeds.
        waiting = state if state in {State.PUBLISHING, State.CONFLICT} else after(state, Event.SEAL)
        assert after(after(waiting, Event.START), Event.RECEIPT) is State.PUBLISHED


@given(st.lists(st.sampled_from(list(Event))))
def test_only_a_receipt_for_the_newest_content_or_a_discard_ends_a_change(events: list[Event]):
    """A model that counts contents: what is sealed after a try began is never taken for published by that try."""
    state, newest, tried, published = State.OPEN, 0, -1, -1
    for event in events:
        if event not in possible(state):
            continue
        before, state = state, after(state, event)
        if event in {Event.WRITE, Event.SEAL} and before is not State.PUBLISHED:
            newest += 1
        elif event is Event.WRITE:  # a draft that lives on after its save
            newest, tried, published = newest + 1, -1, -1
        elif event is Event.START:
            tried = newest
        elif event is Event.RECEIPT and before is not State.PUBLISHED:
            published = tried
        elif event is Event.DISCARD:
            published = newest
        if state is State.PUBLISHED:
            assert published == newest
        if before in WAITING and state is State.PUBLISHED:
            assert event in {Event.RECEIPT, Event.DISCARD}


@pytest.mark.parametrize("result", RESULTS)
def test_the_result_of_an_old_try_leaves_newer_content_alone(result: Event):
    """Somebody wrote during the try, sealed or not; only being overtaken is true of the newer content as well."""
    writing = after(State.PUBLISHING, Event.WRITE)
    assert after(writing, result) is State.OPEN
    sealed = after(writing, Event.SEAL)
    assert after(sealed, result) is (State.CONFLICT if result is Event.OVERTAKEN else State.SEALED)


@pytest.mark.parametrize("result", RESULTS)
def test_the_result_of_a_try_after_a_discard_brings_nothing_back(result: Event):
    """The user gave it up while it was on its way."""
    assert after(after(State.PUBLISHING, Event.DISCARD), result) is State.PUBLISHED
