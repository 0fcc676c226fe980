"""Attention begins by finding where the last tokens stood before."""

import pytest
import torch

from nextword.model.bigrams import begin_with_bigrams
from nextword.model.induction import suits
from nextword.model.initialize import initialize
from nextword.model.shape import ModelSettings, Shape, resolve_shape
from nextword.model.transformer import Transformer
from tests.model.test_bigrams import counted, markov

SIZE = 200


def begun(**said):
    shape = resolve_shape(ModelSettings(tie_word_embeddings=False, **said), SIZE, 256, causal=True)
    model = Transformer(shape)
    initialize(model, 0)
    _, bigrams = counted(markov(SIZE, 20_000), SIZE)
    begin_with_bigrams(model, bigrams, 0)
    return model, bigrams


def repeated(bigrams, rows=8, length=60):
    """Draw rows in which nothing but what stands in them says what comes: all comes twice."""
    source = torch.Generator().manual_seed(1)
    drawn = torch.multinomial(
        bigrams.frequency, rows * length, replacement=True, generator=source
    ).view(rows, length)
    return torch.cat((drawn, drawn), dim=1)


def looks(model, ids):
    """Return each layer's attention, (layers, heads, B, T, T)."""
    found = []

    def note(_, given):
        queries, keys = given[:2]
        keys = keys.repeat_interleave(queries.shape[1] // keys.shape[1], dim=1)
        scores = queries @ keys.transpose(-1, -2) / queries.shape[-1] ** 0.5
        before = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        found.append(scores.masked_fill(~before, -torch.inf).softmax(-1).transpose(0, 1))

    hooks = [layer.self_attn.mix.register_forward_pre_hook(note) for layer in model.model.layers]
    logits = model(ids)
    for hook in hooks:
        hook.remove()
    return found, logits


def share_looking(attention, back, first):
    """How much of what a head looks at stands so many places back, on average."""
    return float(attention.diagonal(-back, dim1=-2, dim2=-1)[:, first:].mean())


@pytest.mark.parametrize(
    "said",
    [{}, {"depth": 3}, {"depth": 4, "num_key_value_heads": 2}, {"rope_theta": 500_000.0}],
    ids=str,
)
@torch.no_grad()
def test_heads_look_back_and_find_what_came_before_and_say_it_again(said):
    model, bigrams = begun(**said)
    length = 60
    ids = repeated(bigrams, length=length)
    attention, logits = looks(model, ids)
    shared = model.shape.num_attention_heads // model.shape.num_key_value_heads
    assert share_looking(attention[0][0], 1, 2) > 0.7
    assert share_looking(attention[0][shared], 2, 2) > 0.7
    # The place after the one at which the same two tokens stood, a length before.
    assert share_looking(attention[1][0], length - 1, 2) > 0.7
    lost = torch.nn.functional.cross_entropy(
        logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none"
    )
    assert lost[:, length + 1 :].mean() < lost[:, : length - 1].mean() - 1.0


@pytest.mark.parametrize(
    ("said", "suited"),
    [
        ({}, True),
        ({"depth": 1}, False),
        ({"hidden_size": 64}, False),  # one head
        ({"num_key_value_heads": 1}, False),
        ({"head_dim": 128}, False),  # no room for the codes beside the odds
        ({"qk_norm": False}, False),
    ],
    ids=str,
)
@torch.no_grad()
def test_where_there_are_no_two_layers_and_heads_it_begins_without(said, suited):
    shape = resolve_shape(ModelSettings(**said), SIZE, 256, causal=True)
    assert suits(shape) is suited
    model, _ = begun(**said)
    assert all(weight.isfinite().all() for weight in model.parameters())


def test_a_masked_network_has_none():
    shape = Shape(
        vocab_size=SIZE, hidden_size=128, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, head_dim=64, context=32, qk_norm=False,
        causal=False,
    )  # fmt: skip
    assert not suits(shape)
