import json
import math

import pytest

from nextword.base.errors import SettingsError
from nextword.base.options import nearest
from nextword.model.shape import ModelSettings, resolve_shape
from nextword.settings import Settings, all_options, as_toml, read_recipe, resolve
from nextword.training.options import TrainingSettings
from nextword.training.plan import default_context, make_plan


def test_every_option_says_what_it_does():
    options = list(all_options())
    assert len(options) > 40
    for option in options:
        assert option.help
        assert option.type in (int, float, str, bool, tuple)
        assert option.default is None or isinstance(option.default, option.type)


def test_the_given_overrules_the_recipe_and_the_recipe_the_default():
    settings = resolve({"training": {"steps": 5, "seed": 3}}, {"training.steps": 7})
    assert (settings.training.steps, settings.training.seed) == (7, 3)
    assert settings.model == Settings().model


def test_written_settings_read_the_same(tmp_path):
    settings = resolve(
        None, {"training.steps": 5, "corpus.field": 'a"b\\c', "model.qk_norm": False}
    )
    (tmp_path / "settings.toml").write_text(as_toml(settings))
    assert resolve(read_recipe(tmp_path / "settings.toml")) == settings


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"model.dept": 3}, "Did you mean model.depth"),
        ({"training.steps": "many"}, "whole number"),
        ({"training.steps": True}, "whole number"),
        ({"training.steps": 0}, "at least 1"),
        ({"training.learning_rate": float("nan")}, "finite number"),
        ({"vocabulary.kind": "words"}, "bpe"),
        ({"evaluation.overlap": 0.99}, "at most"),
    ],
)
def test_wrong_settings_are_said(given, words):
    with pytest.raises(SettingsError, match=words):
        resolve(None, given)


def test_a_recipe_must_be_toml_with_rooms(tmp_path):
    (tmp_path / "a.toml").write_text("steps 3")
    with pytest.raises(SettingsError, match=r"a\.toml: not a recipe"):
        read_recipe(tmp_path / "a.toml")
    with pytest.raises(SettingsError, match="under a room"):
        resolve({"steps": 3})


def test_the_nearest_name():
    assert nearest("storys", ["stories", "python"]) == " Did you mean stories?"
    assert nearest("xyz", ["stories"]) == ""


def test_every_default_comes_from_somewhere():
    options = {option.path: option for option in all_options()}
    sources = {"the text", "the network", "the machine", "the examples", "--from"}
    for option in options.values():
        assert set(option.of) <= options.keys() | sources, option.path
        assert bool(option.of) <= bool(option.rule), option.path
        assert "(default" not in option.help, option.path
        assert not (option.rule and option.default not in (None, ())), option.path


def test_settings_are_listed_with_where_they_come_from(place):
    said = place.nextword("settings").stdout
    for option in all_options():
        assert option.path in said
    one = place.nextword("settings", "training.batch-tokens").stdout
    assert "derived from model.depth" in " ".join(one.split())
    assert one.count("Default:") == 1
    rows = json.loads(place.nextword("settings", "model", "--json").stdout)["settings"]
    width = next(row for row in rows if row["option"] == "model.hidden_size")
    assert (width["rule"], width["derived_from"]) == ("64 × depth", ["model.depth"])
    wrong = place.nextword("settings", "modle")
    assert wrong.returncode == 2
    assert "Did you mean model?" in wrong.stderr


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 6, 8, 12, 40])
def test_rules_say_what_is_done(depth):
    """The rules of the dial, computed from their words."""
    shape = resolve_shape(ModelSettings(depth=depth), 5000, 64)
    assert shape.hidden_size == 64 * depth
    assert shape.intermediate_size == max(64, round(shape.hidden_size * 8 / 3 / 64) * 64)
    assert shape.num_attention_heads == shape.hidden_size // 64
    text = 10**9
    context = default_context(ModelSettings(depth=depth), text)
    assert context == (256 if depth < 6 else min(128 * (depth // 2), 2048))
    assert default_context(ModelSettings(depth=depth), 1600) <= 1600 / 16
    asked = {"fresh": False, "device": "cpu", "ranks": 1}
    plan = make_plan(TrainingSettings(), shape, text, **asked)
    power = 2 ** math.ceil(math.log2(512 * depth**2))
    assert plan.batch_tokens == min(max(power, 2048), 524288)
    tokens = plan.steps * plan.batch_tokens
    readings = min(max(4_900 / math.sqrt(text), 3), 4)
    wanted = min(20 * shape.parameters(), readings * text)
    assert tokens == pytest.approx(wanted, abs=plan.batch_tokens)
    few = make_plan(TrainingSettings(), shape, 4_000_000, **asked | {"fresh": True})
    assert few.steps * few.batch_tokens <= 2 * 4_000_000 + few.batch_tokens


@pytest.mark.parametrize(
    ("tokens", "readings", "batch"),
    [
        (500, 32, 256),
        (5_000, 24.04, 512),
        (45_000, 8.01, 1024),
        (315_000, 4, 2048),
        (10**7, 4, 2048),
    ],
)
def test_a_small_text_is_read_more_often_and_in_smaller_steps(tokens, readings, batch):
    shape = resolve_shape(ModelSettings(depth=2), 50_000, 16)
    asked = {"fresh": False, "device": "cpu", "ranks": 1}
    plan = make_plan(TrainingSettings(soft_targets=1.0), shape, tokens, **asked)
    assert plan.batch_tokens == batch
    wanted = min(readings * tokens, 20 * shape.parameters())
    assert plan.steps * batch == pytest.approx(wanted, rel=0.02, abs=batch)
    deeper = resolve_shape(ModelSettings(depth=3), 50_000, 16)
    plan = make_plan(TrainingSettings(soft_targets=1.0), deeper, tokens, **asked)
    readings = 0.75 * readings if tokens > 8_000 else readings
    wanted = min(readings * tokens, 20 * deeper.parameters())
    assert plan.steps * plan.batch_tokens == pytest.approx(wanted, rel=0.02, abs=plan.batch_tokens)
    hard = make_plan(TrainingSettings(), shape, tokens, **asked)
    assert hard.batch_tokens == 2048
    often = 4 if tokens <= 1_500_000 else 3
    assert hard.steps * 2048 == pytest.approx(often * tokens, abs=2048)


def test_a_long_text_is_read_less_often():
    """Beyond a megabyte or so time is what is scarce: the fourth reading goes bit by bit."""
    shape = resolve_shape(ModelSettings(depth=2), 50_000, 16)
    asked = {"fresh": False, "device": "cpu", "ranks": 1}
    for tokens, readings in (
        (1_500_000, 4),
        (2_000_000, 3.464),
        (2_600_000, 3.038),
        (3 * 10**6, 3),
    ):
        plan = make_plan(TrainingSettings(), shape, tokens, **asked)
        assert plan.steps * plan.batch_tokens == pytest.approx(readings * tokens, rel=0.001)
