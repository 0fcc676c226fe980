"""What `nextword.load` returns: a network, a tokenizer, scores, and data that draws itself."""

import math

import pytest
import tokenizers
import torch

import nextword
from nextword.base import display
from nextword.base.errors import EvaluationError
from nextword.explanation.trace import Trace

TEXT = "Long ago, on a sunny day, Maria wrote a letter to her niece. " * 12


@pytest.fixture
def model(shared_environment, small_run):
    return nextword.load(small_run)


def test_it_is_a_module_and_a_tokenizer(model):
    assert isinstance(model.model, torch.nn.Module)
    assert isinstance(model.tokenizer, tokenizers.Tokenizer)
    ids = model.tokenizer.encode(TEXT, add_special_tokens=False).ids
    assert ids == model.vocabulary.encode(TEXT)
    with torch.no_grad():
        assert model.model(torch.tensor([ids[:9]])).shape == (1, 9, len(model.vocabulary))


def test_a_score_is_the_sum_of_the_tokens_logs(model):
    scored = model.score(TEXT)
    ids = [model.vocabulary.end_id, *model.vocabulary.encode(TEXT)]
    assert list(scored.ids) == ids[1:]
    context, expected = model.model.shape.context, []
    for start in range(0, len(ids) - 1, context):
        part = torch.tensor([ids[start : start + context + 1]])
        with torch.no_grad():
            logs = model.model(part[:, :-1]).double().log_softmax(-1)[0]
        expected += logs.gather(1, part[0, 1:, None])[:, 0].tolist()
    assert list(scored.log_probabilities) == pytest.approx(expected, abs=1e-5)
    assert scored.log_likelihood == pytest.approx(sum(expected), rel=1e-6)
    assert scored.perplexity == pytest.approx(math.exp(-sum(expected) / len(expected)), rel=1e-6)
    assert scored.bits == pytest.approx(-sum(expected) / math.log(2), rel=1e-6)
    assert "".join(scored.pieces) == TEXT
    assert scored.nats_per_token == pytest.approx(model.explain(TEXT).nats_per_token, rel=1e-6)


def test_no_text_has_no_score(model):
    with pytest.raises(EvaluationError, match="empty text"):
        model.score("")


def test_what_it_finds_is_drawn_by_print_and_in_notebooks(model, monkeypatch):
    found = [model.explain("Long ago"), model.audit("Long ago"), model.replay(),
             model.ruler(primed=False), model.compare(model, text="Long ago")]  # fmt: skip
    for one in found:
        assert "\n" in str(one)
        assert not str(one).startswith(type(one).__name__)
        assert "<" in one._repr_html_()
    monkeypatch.delitem(display._registered, Trace)
    assert str(found[0]) == repr(found[0])
    assert found[0]._repr_html_() is None
