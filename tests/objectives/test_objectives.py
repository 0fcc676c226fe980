"""One contract over every objective that is found in the folder."""

import dataclasses
import inspect

import pytest

from nextword.base.errors import SettingsError
from nextword.cli.program import app  # its verbs come with nextword.cli
from nextword.model.layouts import KINDS, LABELS
from nextword.objectives import Objective, find_objective, names, objective_of

VERBS = {*app}
LAYOUTS = {layout.language_model for layout in KINDS.values()} | {
    layout.name + LABELS for layout in KINDS.values()
}


def test_these_are_found():
    assert names() == ["answer", "causal", "labelled", "masked", "preference"]


@pytest.mark.parametrize("name", names())
def test_each_declares_all_of_it(name):
    objective = find_objective(name)
    assert isinstance(objective, Objective)
    assert objective.name == name
    assert objective.asks.endswith("?")
    assert objective.attention in ("before", "both", "as begun")
    assert objective.head in ("vocabulary", "labels")
    assert objective.loss
    assert objective.metrics
    assert set(objective.layouts) <= LAYOUTS
    assert objective.layouts
    assert inspect.getdoc(objective.make_batch)
    for verb, reason in objective.cannot.items():
        assert verb in VERBS | {"score"}, verb  # what Python alone can ask
        assert len(reason) > 20
        assert "\n" not in reason
    for field in dataclasses.fields(Objective):
        assert hasattr(objective, field.name)


def test_every_layout_is_of_some_objective_and_text_comes_before_labels():
    for layout in LAYOUTS:
        assert layout in objective_of(layout).layouts
    assert objective_of("Qwen3ForCausalLM").name == "causal"
    assert objective_of("EuroBertForMaskedLM").name == "masked"
    assert objective_of("LlamaForSequenceClassification").name == "labelled"


def test_an_unknown_name_lists_those_there_are():
    with pytest.raises(SettingsError, match=r"masked.*Did you mean masked"):
        find_objective("maskd")
