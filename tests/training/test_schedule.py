import itertools

import pytest

from nextword.base.errors import SettingsError
from nextword.settings import resolve
from nextword.training.options import TrainingSettings
from nextword.training.schedule import Pace, cosine_rate, rate_factor, read_pace


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


def test_a_cosine_falls_to_a_floor():
    found = factors(100, warmup_steps=0, decay="cosine", decay_floor=0.1)
    assert found[0] == 1.0
    assert found[50] == pytest.approx(0.55)
    assert found[-1] == pytest.approx(0.1, abs=1e-3)
    assert found == sorted(found, reverse=True)
    assert factors(100, decay_floor=0.25, decay_power=1.0)[60] == pytest.approx(0.25 + 0.75 * 0.4)


def test_a_form_of_decay_that_there_is_not_is_refused():
    with pytest.raises(SettingsError, match="choose one of power, cosine"):
        resolve(given={"training.decay": "linear"})


def test_the_cosine_of_others():
    asked = {"peak": 1.0, "floor": 0.1, "warmup": 10, "steps": 110}
    found = [cosine_rate(step, **asked) for step in range(120)]
    assert found[:11] == pytest.approx([step / 10 for step in range(11)])
    assert found[60] == pytest.approx(0.55)
    assert found[110:] == [0.1] * 10


def test_a_pace_that_never_changes_is_the_plan():
    pace, settings = Pace(100), TrainingSettings(decay_power=2.0)
    assert [pace.place(step) for step in (0, 7, 99)] == [(0, 100), (7, 100), (99, 100)]
    assert rate_factor(*pace.place(40), settings) == rate_factor(40, 100, settings)


def test_the_rate_goes_on_without_a_jump_and_ends_where_the_steps_end():
    pace = Pace(100, [(40, 60), (50, 90)])
    settings = TrainingSettings(warmup_steps=0, decay_power=1.0)
    found = [rate_factor(*pace.place(step), settings) for step in range(pace.steps)]
    assert pace.steps == 90
    assert found[40] == pytest.approx(0.6)  # 40 of 100 behind, whatever comes
    assert found[50] == pytest.approx(0.3)  # half of what was left in ten of twenty steps
    assert found[70] == pytest.approx(0.15)
    assert found[89] == pytest.approx(0.3 / 40)
    falls = [before - after for before, after in itertools.pairwise(found)]
    assert min(falls) > 0
    assert max(falls) == pytest.approx(0.03)


def test_a_pace_is_read_as_it_is_written():
    pace = read_pace("120:800 240:790", 820)
    assert pace.changes == ((120, 800), (240, 790))
    assert read_pace("", 5).changes == ()


@pytest.mark.parametrize("text", ["120", "120:", "a:b", "1:2:3", "40:30", "50:90 40:80", "100:120"])
def test_a_pace_that_cannot_be_is_refused(text):
    with pytest.raises(SettingsError, match="pace"):
        read_pace(text, 100)
