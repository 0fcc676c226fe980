import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextword.base.errors import CorpusError
from nextword.targets.batch import Lesson, lessons, read_batch, shift
from nextword.targets.windows import Windows, keyed_permutation


class Numbers:
    """A stream whose token t is t; position −1 holds 0 as if it ended a text."""

    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def read(self, start, stop):
        return np.maximum(np.arange(start, min(stop, self.size)), -1)


@given(st.integers(1, 2000), st.integers(0, 2**63))
def test_the_permutation_visits_everything_once(size, key):
    order = keyed_permutation(np.arange(size), size, key)
    assert sorted(order.tolist()) == list(range(size))


def test_different_keys_give_different_orders_and_neighbors_scatter():
    first, second = (keyed_permutation(np.arange(1000), 1000, key) for key in (1, 2))
    assert (first == second).mean() < 0.01
    assert abs(np.corrcoef(np.arange(1000), first)[0, 1]) < 0.1


@given(st.integers(20, 400), st.integers(2, 20), st.integers(1, 7), st.integers(0, 1000))
def test_no_target_repeats_within_an_epoch(tokens, context, rows, seed):
    windows = Windows(tokens, context, rows, seed)
    whole_steps = windows.per_epoch // rows
    seen = [
        (start + place) % tokens
        for step in range(whole_steps)
        for start in windows.starts(step)
        for place in range(context)
    ]
    assert len(seen) == len(set(seen))


def test_each_epoch_has_an_offset_of_its_own():
    windows = Windows(1000, 10, 100, seed=5)
    offsets = {int(windows.starts(step)[0]) % 10 for step in range(40)}
    assert len(offsets) > 5


def test_the_batch_does_not_depend_on_how_rows_are_shared():
    stream, windows = Numbers(500), Windows(500, 16, 8, seed=3)
    whole = read_batch(stream, windows, 7)
    parts = [read_batch(stream, windows, 7, slice(start, start + 2)) for start in range(0, 8, 2)]
    assert np.array_equal(whole.inputs, np.concatenate([part.inputs for part in parts]))
    assert np.array_equal(whole.targets, np.concatenate([part.targets for part in parts]))


def test_targets_are_the_inputs_shifted_by_one_also_round_the_end():
    stream, windows = Numbers(100), Windows(100, 30, 3, seed=1)
    for step in range(30):
        batch = read_batch(stream, windows, step)
        assert batch.inputs.shape == batch.targets.shape == (3, 30)
        assert np.array_equal(batch.inputs[:, 1:], batch.targets[:, :-1])
        following = (batch.inputs + 1) % 100
        assert np.array_equal(following, batch.targets)


def test_another_seed_gives_another_order():
    first, second = (Windows(1000, 10, 5, seed).starts(0).tolist() for seed in (0, 1))
    assert first != second


def test_a_text_shorter_than_the_context_is_refused():
    with pytest.raises(CorpusError, match="too short"):
        Windows(15, 16, 1, 0)


def test_a_sentence_gives_itself_a_lesson_for_every_context_length():
    found = list(lessons([10, 11, 12, 13]))
    assert found == [Lesson([10], 11), Lesson([10, 11], 12), Lesson([10, 11, 12], 13)]
    batch = shift(np.array([[10, 11, 12, 13]]))
    assert batch.inputs.tolist() == [[10, 11, 12]]
    assert batch.targets.tolist() == [[11, 12, 13]]
