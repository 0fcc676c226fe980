"""Recipes are read as they stand, and say what their pages say."""

from pathlib import Path

import pytest

from nextword.model.shape import resolve_shape
from nextword.settings import read_recipe, resolve

FOLDER = Path(__file__).parents[1] / "recipes"


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.toml")), ids=lambda file: file.stem)
def test_each_recipe_is_understood(file):
    asked = read_recipe(file)
    settings = resolve(asked)
    for room, values in asked.items():
        for name, value in values.items():
            assert getattr(getattr(settings, room), name) == value, (room, name)


def test_gpt2_is_gpt2s_size_and_reads_the_tokens_that_are_planned():
    settings = resolve(read_recipe(FOLDER / "gpt2-124m.toml"))
    shape = resolve_shape(settings.model, 50_257, settings.model.context)
    # Three matrices of SwiGLU in place of two, and no table of positions.
    assert shape.parameters() == pytest.approx(124e6, rel=0.01)
    tokens = settings.training.steps * settings.training.batch_tokens
    assert tokens == pytest.approx(3.25e9, rel=0.01)
    page = (FOLDER.parent / "docs" / "gpu.md").read_text(encoding="utf-8")
    for rate, hours, euros in ((303_000, 3.0, 7.4), (505_800, 1.8, 4.5), (100_700, 9.0, 22)):
        assert f"| {rate:,} | {hours} | {euros} |" in page
        assert tokens / rate / 3600 == pytest.approx(hours, rel=0.03)
        assert 2.5 * tokens / rate / 3600 == pytest.approx(euros, rel=0.03)
