"""What stood a few lines above is expected again, as counting within the row says."""

import numpy as np
import pytest

from nextword.prediction.recent import STRENGTHS, recall

ENTRIES, END = 7, 0


def one_by_one(odds, inputs, end_id):
    """The same by loops, from the words of the module."""
    mixed = odds.astype(np.float64)
    for row, read in enumerate(inputs.tolist()):
        for place in range(len(read)):
            begins = [at for at in range(place + 1) if read[at] == end_id]
            first = begins[-1] if begins and end_id is not None else 0
            for length, strength in enumerate(STRENGTHS, start=1):
                context = read[place - length + 1 : place + 1]
                if place - length + 1 < first:
                    break
                came = [
                    read[at + 1]
                    for at in range(first + length - 1, place)
                    if read[at - length + 1 : at + 1] == context
                ]
                if not came:
                    break
                counts = np.bincount(came, minlength=ENTRIES)
                left = strength * len(set(came))
                mixed[row, place] = (counts + left * mixed[row, place]) / (len(came) + left)
    return mixed


@pytest.mark.parametrize("end_id", [END, None])
@pytest.mark.parametrize("positions", [1, 2, 5, 40])
def test_it_is_what_counting_row_by_row_gives(positions, end_id):
    source = np.random.default_rng(0)
    for likely in (0.02, 0.3):  # ends of documents: few, and many
        share = np.append(likely, np.full(ENTRIES - 1, (1 - likely) / (ENTRIES - 1)))
        inputs = source.choice(ENTRIES, (6, positions), p=share)
        inputs[0] = 3  # one token again and again
        odds = source.dirichlet(np.ones(ENTRIES), inputs.shape).astype(np.float32)
        expected = one_by_one(odds, inputs, end_id)
        assert recall(odds, inputs, end_id) is odds  # in place
        np.testing.assert_allclose(odds, expected, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(odds.sum(-1), 1, atol=1e-5)


def test_what_came_after_the_same_tokens_is_likelier_and_the_more_of_them_the_likelier():
    name = [4, 5, 6, 1, 2, 3]
    inputs = np.array([[*name, 1, 4, 5, 6]])
    even = np.full((1, 10, ENTRIES), 1 / ENTRIES, dtype=np.float32)
    odds = recall(even.copy(), inputs, END)
    again = [float(odds[0, place, inputs[0, place + 1]]) for place in (7, 8)]
    assert even[0, 0, 0] < again[0] < again[1] < odds[0, 9, 1]
    # Nothing of another row, and nothing of another document.
    apart = recall(even.reshape(2, 5, ENTRIES).copy(), inputs.reshape(2, 5), END)
    np.testing.assert_allclose(apart[1, 2:], 1 / ENTRIES)
    other = np.array([[*name, END, 4, 5, 6]])
    np.testing.assert_allclose(recall(even.copy(), other, END)[0, 7:], 1 / ENTRIES)
    assert recall(even.copy(), other)[0, 9, 1] > 0.2
