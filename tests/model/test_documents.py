"""Documents of long rows, each computed by itself: what a mask of the whole row gives."""

from dataclasses import replace

import pytest
import torch

from nextword.kernels.choose import plain_only
from nextword.model.attention import attention
from nextword.model.documents import LONG_ROW, Pieces, may_look, pieces_of
from nextword.model.initialize import initialize
from nextword.model.runner import LayerRunner, as_it_stands, keeping_less
from nextword.model.shape import ModelSettings, resolve_shape
from nextword.model.transformer import Transformer
from nextword.training.step import LanguageModelLoss

END = 0


def numbered(rows, length, seed=0, share=0.02):
    """Documents of rows, some of one position, one row all of one document."""
    source = torch.Generator().manual_seed(seed)
    ends = torch.rand(rows, length, generator=source) < share
    ends[:, 5:7] = True
    ends[-1] = False
    return ends.cumsum(dim=1)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("heads", [(4, 4), (4, 2)])
@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.bfloat16])
def test_each_by_itself_is_a_mask_of_all(causal, heads, kind):
    rows, length, width = 3, LONG_ROW + 200, 16
    source = torch.Generator().manual_seed(1)
    documents = numbered(rows, length)
    pieces = pieces_of(documents, causal=causal)
    assert sum(end - start for _, start, end in pieces.places) == rows * length
    given = [
        torch.randn(rows, length, count, width, generator=source).to(kind).transpose(1, 2)
        for count in (heads[0], heads[1], heads[1])
    ]
    pull = torch.randn(rows, heads[0], length, width, generator=source).to(kind)
    found = []
    for seen in (pieces, may_look(documents, causal=causal)):
        read = [one.clone().requires_grad_() for one in given]
        mixed = attention(*read, seen)
        mixed.backward(pull)
        found.append([mixed.detach(), *(one.grad for one in read)])
    exact = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.1}[kind]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=exact, rtol=exact)


def test_who_wants_to_see_the_network_plainly_gets_the_mask():
    documents = numbered(2, LONG_ROW)
    pieces = pieces_of(documents, causal=True)
    assert pieces.mask().equal(may_look(documents, causal=True))
    queries, keys, values = torch.randn(3, 2, 2, LONG_ROW, 8)
    with plain_only():
        plain = attention(queries, keys, values, pieces)
    assert plain.equal(attention(queries, keys, values, may_look(documents, causal=True)))


def test_where_it_would_not_be_quicker_there_are_none():
    assert pieces_of(numbered(2, LONG_ROW - 1), causal=True) is None
    assert pieces_of(torch.arange(LONG_ROW)[None], causal=True) is None  # one position each
    again = numbered(2, LONG_ROW)
    again[0, -9:] = 0  # the first document once more
    assert pieces_of(again, causal=True) is None


def loss_of(model, ids, *, recompute="none", plain=False, is_compiled=False):
    """The loss and the gradients of all weights; and who was told where documents stand."""
    runner = None
    if recompute != "none" or is_compiled:
        step = as_it_stands if recompute == "none" else keeping_less(as_it_stands, recompute)
        runner = LayerRunner(step, is_compiled=is_compiled)
    model.model.runner = runner
    told = []
    for layer in model.model.layers:
        layer.self_attn.mix.register_forward_pre_hook(lambda _, given: told.append(given[3]))
    loss = LanguageModelLoss(model, precision=torch.float32, end_id=END)
    model.zero_grad()
    if plain:
        with plain_only():
            nats = loss(ids, ids.roll(-1, dims=1))
    else:
        nats = loss(ids, ids.roll(-1, dims=1))
    nats.backward()
    return float(nats.detach()), [one.grad.clone() for one in model.parameters()], told


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
def test_a_long_row_learns_the_same(one_thread, causal, recompute):
    settings = ModelSettings(depth=2, hidden_size=32)
    shape = resolve_shape(settings, 50, LONG_ROW, causal=causal)
    model = Transformer(replace(shape, num_key_value_heads=1))
    initialize(model, 0)
    ids = torch.randint(1, 50, (2, LONG_ROW), generator=torch.Generator().manual_seed(3))
    ids[0, 40::90] = END
    nats, gradients, told = loss_of(model, ids, recompute=recompute)
    assert told
    assert all(isinstance(one, Pieces) for one in told)
    alone, others, masks = loss_of(model, ids, plain=True)
    assert isinstance(masks[-1], torch.Tensor)
    assert nats == pytest.approx(alone, rel=1e-6)
    for one, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    if recompute == "none":
        assert isinstance(loss_of(model, ids, is_compiled=True)[2][-1], torch.Tensor)
