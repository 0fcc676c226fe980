import math

import pytest
import torch

from nextword.base.errors import SettingsError
from nextword.model.attention import KeyValueCache
from nextword.model.documents import may_look
from nextword.model.initialize import initialize
from nextword.model.shape import ModelSettings, Shape, resolve_shape
from nextword.model.transformer import Transformer
from nextword.objectives.causal import documents_of
from nextword.training.optimizers import groups_of

SHAPE = Shape(
    vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=8, context=24,
)  # fmt: skip


def scattered(shape=SHAPE, seed=0):
    """A network whose every weight is random, so that each part matters."""
    model = Transformer(shape)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3 + (weight.ndim == 1))
    return model


def ids(rows=2, length=20, seed=1):
    return torch.randint(0, 97, (rows, length), generator=torch.Generator().manual_seed(seed))


def test_changing_a_token_moves_no_earlier_logit():
    model, first = scattered(), ids()
    second = first.clone()
    second[:, 12] = (second[:, 12] + 1) % 97
    before, after = model(first), model(second)
    assert torch.equal(before[:, :12], after[:, :12])
    assert not torch.equal(before[:, 12:], after[:, 12:])


def test_documents_in_one_row_do_not_see_each_other():
    model, end = scattered(), 0
    one, two = ids(1, 9, 2).clamp(min=1), ids(1, 8, 3).clamp(min=1)
    mark = torch.tensor([[end]])
    together = torch.cat([mark, one, mark, two], dim=1)
    states = model.hidden(together, seen=may_look(documents_of(together, end), causal=True))
    alone = model.hidden(torch.cat([mark, two], dim=1))
    torch.testing.assert_close(states[:, 10:], alone, atol=1e-5, rtol=1e-5)


def test_the_mask_shows_itself_and_what_came_before_in_the_document():
    seen = may_look(documents_of(torch.tensor([[0, 5, 0, 7]]), 0), causal=True)[0, 0]
    assert seen.tolist() == [
        [True, False, False, False],
        [True, True, False, False],
        [False, False, True, False],
        [False, False, True, True],
    ]


@pytest.mark.parametrize("parts", [[1] * 20, [7, 1, 12], [20]])
def test_a_cache_gives_the_same_logits(parts):
    model, text = scattered(), ids(1)
    cache = KeyValueCache(SHAPE, 1, torch.device("cpu"))
    found = torch.cat([model(part, cache) for part in text.split(parts, dim=1)], dim=1)
    torch.testing.assert_close(found, model(text), atol=2e-5, rtol=1e-4)


def test_at_step_0_every_token_is_nearly_equally_likely():
    model = Transformer(SHAPE)
    initialize(model, 0)
    loss = -model(ids()).detach().log_softmax(-1).mean()
    assert float(loss) == pytest.approx(math.log(97), abs=0.01)


def test_first_weights_depend_on_the_seed_alone():
    first, second, other = Transformer(SHAPE), Transformer(SHAPE), Transformer(SHAPE)
    initialize(first, 3)
    torch.rand(5)
    initialize(second, 3)
    initialize(other, 4)
    for one, two, three in zip(
        first.parameters(), second.parameters(), other.parameters(), strict=True
    ):
        assert torch.equal(one, two)
        assert one.ndim == 1 or not one.any() or not torch.equal(one, three)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("qk_norm", [True, False])
def test_parameters_are_counted_exactly(tied, qk_norm):
    settings = ModelSettings(
        depth=3, tie_word_embeddings=tied, qk_norm=qk_norm, num_key_value_heads=1
    )
    shape = resolve_shape(settings, 500, 64)
    assert shape.parameters() == sum(weight.numel() for weight in Transformer(shape).parameters())


def test_one_dial_gives_every_size():
    shape = resolve_shape(ModelSettings(depth=12), 50_000, 1024)
    assert (
        shape.hidden_size,
        shape.num_attention_heads,
        shape.head_dim,
        shape.intermediate_size,
    ) == (768, 12, 64, 2048)


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(SettingsError, match="not a multiple"):
        resolve_shape(ModelSettings(num_attention_heads=4, num_key_value_heads=3), 100, 16)
    with pytest.raises(SettingsError, match="does not divide"):
        resolve_shape(ModelSettings(hidden_size=100, num_attention_heads=3), 100, 16)
    with pytest.raises(SettingsError, match="must be even"):
        resolve_shape(ModelSettings(head_dim=7), 100, 16)
    with pytest.raises(SettingsError, match="at least 1"):
        resolve_shape(ModelSettings(depth=0), 100, 16)


def test_groups_hold_every_parameter_once():
    model = Transformer(SHAPE)
    groups = groups_of(model)
    names = [name for group in groups.values() for name in group]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    assert list(groups["embeddings"]) == ["model.embed_tokens.weight"]
    assert all(weight.ndim == 2 for weight in groups["matrices"].values())


def test_bfloat16_products_stay_near_float32():
    model = scattered()
    exact = model(ids()).detach()
    model.set_precision(torch.bfloat16)
    assert float((model(ids()).detach() - exact).norm() / exact.norm()) < 0.02
