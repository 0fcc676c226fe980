import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextword.base.errors import CorpusError
from nextword.targets.batch import Lesson, lessons, read_batch, shift
from nextword.targets.windows import Mixture, Windows, keyed_permutation


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
    whole = read_batch([stream], windows, 7)
    parts = [read_batch([stream], windows, 7, slice(start, start + 2)) for start in range(0, 8, 2)]
    assert np.array_equal(whole.inputs, np.concatenate([part.inputs for part in parts]))
    assert np.array_equal(whole.targets, np.concatenate([part.targets for part in parts]))


def test_targets_are_the_inputs_shifted_by_one_also_round_the_end():
    stream, windows = Numbers(100), Windows(100, 30, 3, seed=1)
    for step in range(30):
        batch = read_batch([stream], windows, step)
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


def mixture(weights=(2.0, 1.0, 0.1), rows=10, seed=0, context=5):
    sizes = [300 + 70 * number for number in range(len(weights))]
    windows = tuple(
        Windows(size, context, rows, seed + number) for number, size in enumerate(sizes)
    )
    return Mixture(windows, tuple(weights), rows, seed), [Numbers(size) for size in sizes]


@given(
    st.lists(st.floats(0.01, 100), min_size=2, max_size=5), st.integers(0, 2**63), st.integers(0, 9)
)
def test_a_text_never_strays_a_whole_row_from_its_share(weights, seed, block):
    mixed, _ = mixture(weights, seed=seed)
    counts, total = mixed.counts(block), block * mixed.block_rows
    assert counts.sum() == total
    for count, share in zip(counts, mixed.shares, strict=True):
        assert abs(count - share * total) < 1
    assert (mixed.counts(block + 1) - counts >= 0).all()


def test_the_expected_number_of_rows_is_exactly_the_share():
    """Over the draw U, which alone is random: its average over many seeds comes to the share."""
    share = 1 / 30.5
    counts = [mixture((29.5, 1.0), seed=seed)[0].counts(1)[1] for seed in range(4000)]
    block = mixture((29.5, 1.0))[0].block_rows
    assert len(set(counts)) == 2
    assert np.mean(counts) == pytest.approx(share * block, abs=4 * 0.5 / 4000**0.5)


def test_rows_of_a_mixture_are_as_counted_and_repeat_no_window_within_an_epoch():
    mixed, _ = mixture()
    steps = mixed.block_rows // mixed.rows
    found = [row for step in range(steps) for row in mixed.rows_of(step)]
    which = np.array([text for text, _ in found])
    block = mixed.counts(1)
    for text, windows in enumerate(mixed.windows):
        mine = [start for other, start in found if other == text]
        assert abs(len(mine) - block[text]) <= mixed.block_rows - steps * mixed.rows
        first_epoch = mine[: windows.per_epoch]
        assert len(set(first_epoch)) == len(first_epoch) > 3
    assert 0 < (which[:100] == 1).sum() < 100


def test_a_mixture_is_a_function_of_seed_and_step_and_divides_among_processes():
    mixed, streams = mixture()
    whole = read_batch(streams, mixed, 7)
    parts = [read_batch(streams, mixed, 7, slice(start, start + 5)) for start in (0, 5)]
    assert np.array_equal(whole.targets, np.concatenate([part.targets for part in parts]))
    again, _ = mixture()
    assert again.rows_of(7) == mixed.rows_of(7)
    assert mixture(seed=1)[0].rows_of(7) != mixed.rows_of(7)
