"""The logit lens: the last layer is the model, and each layer's words are its own stream's."""

from types import SimpleNamespace

import pytest
import torch

import nextword
from nextword.base.errors import EvaluationError
from nextword.explanation.lens import lens


@pytest.fixture(scope="module")
def model(shared, small_run):
    return nextword.load(shared.folder / "runs" / small_run, device="cpu")


def test_the_last_layer_says_what_the_model_says(model):
    found = lens(model.model, model.vocabulary, "We are all", top=5)
    assert [one.layer for one in found] == [0, 1, 2]
    told = model.predict("We are all", 5)
    for (piece, value), candidate in zip(found[-1].candidates, told.candidates, strict=True):
        assert piece == candidate.piece
        assert value == pytest.approx(candidate.probability, rel=1e-4)
    assert found[-1].target_probability == pytest.approx(told.candidates[0].probability, rel=1e-4)


def test_a_layer_that_adds_nothing_says_what_came_before(model):
    import copy

    network = copy.deepcopy(model.model)
    with torch.no_grad():
        network.model.layers[1].self_attn.o_proj.weight.zero_()
        network.model.layers[1].mlp.down_proj.weight.zero_()
    found = lens(network, model.vocabulary, "We are all")
    assert found[2].candidates == found[1].candidates
    assert found[1].candidates != found[0].candidates
    assert not any(layer._forward_hooks for layer in network.model.layers)


def test_only_what_looks_back_is_asked(model):
    both = SimpleNamespace(shape=SimpleNamespace(causal=False))
    with pytest.raises(EvaluationError, match="hidden"):
        lens(both, model.vocabulary, "We")
