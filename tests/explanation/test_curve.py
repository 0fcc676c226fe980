"""What a run's own curve says of a larger network, and how it is said."""

import re

import pytest

from nextword.explanation.curve import LAYER_BY_QUARTER, gain_of_a_layer, last_quarter
from nextword.rendering.training import describe_what_helps

CURVE = [(25, 4.0), (50, 3.5), (75, 3.2), (100, 3.1)]


def test_the_last_quarter_is_that_of_the_steps():
    assert last_quarter(CURVE) == pytest.approx(1 - 3.1 / 3.2)
    assert last_quarter([(5 * n, 5.0 - n / 10) for n in range(1, 21)]) == pytest.approx(0.5 / 3.5)
    assert last_quarter([(75, 3.0), (100, 3.3)]) == pytest.approx(-0.1)


@pytest.mark.parametrize(
    "curve", [[], [(100, 3.0)], [(50, 3.5), (100, 3.1)], [(75, 0.0), (100, 0)]]
)
def test_without_a_moment_about_there_it_says_nothing(curve):
    assert last_quarter(curve) is None


def test_a_layer_brings_in_proportion_and_never_less_than_nothing():
    assert gain_of_a_layer(0.02) == pytest.approx(0.02 * LAYER_BY_QUARTER)
    assert gain_of_a_layer(-0.02) == 0


@pytest.mark.parametrize(
    ("layer", "size", "layers", "words"),
    [
        (0.031, 300_000, 2, "would bring about 3.1%, in two to three times the time"),
        (0.001, 300_000, 2, "would bring little"),
        (0.031, 10_000, 2, "has brought 0 to 5 % on texts this small: --model.depth 3"),
        (0.031, 300_000, 3, "More layers than three have brought 1 % at most"),
        (0.031, 10_000, 3, "More layers than three"),
        (None, 300_000, 2, "curve does not say"),
    ],
)
def test_what_would_help_is_said_from_the_runs_own_curve(layer, size, layers, words):
    said = describe_what_helps(
        0.08, layer, paths=["a b.txt"], num_bytes=size, layers=layers, seconds=70
    )
    assert "twice as much would bring about 8%" in said
    assert words in said
    offers = layer == 0.031 and layers == 2 and size > 10_000
    assert ('nextword train "a b.txt" --minutes 4' in said) == offers


def test_a_training_that_learns_from_this_one_is_offered_with_its_command():
    asked = {"paths": ["text.txt"], "num_bytes": 30_000, "layers": 3, "seconds": 30}
    said = describe_what_helps(0.08, 0.01, **asked, teacher="my run")
    assert "nextword train text.txt --training.teacher 'my run'" in said.replace('"', "'")
    assert "--training.teacher" not in describe_what_helps(0.08, 0.01, **asked)
    # No sentence runs into a command.
    assert re.search(r"my run['\"]\)\. Other text", said)
