import pytest

from nextword.training.options import TrainingSettings
from nextword.training.schedule import rate_factor


def factors(steps, **settings):
    return [rate_factor(step, steps, TrainingSettings(**settings)) for step in range(steps)]


def test_it_rises_holds_and_falls_to_just_above_zero():
    found = factors(100, warmup_steps=9, decay_share=0.5, decay_power=1.0)
    assert found[0] == pytest.approx(0.1)
    assert found[8] == pytest.approx(0.9)
    assert found[9:51] == [1.0] * 42
    assert found[75] == pytest.approx(0.5)
    assert found[-1] == pytest.approx(0.02)


def test_a_power_ends_more_gently():
    assert factors(100, decay_power=2.0)[50] == pytest.approx(0.25)


def test_no_decay_stays_at_the_peak():
    assert factors(50, decay_share=0.0, warmup_steps=0) == [1.0] * 50


def test_it_never_leaves_0_to_1():
    for steps in (1, 2, 3, 10):
        assert all(0 < factor <= 1 for factor in factors(steps))
