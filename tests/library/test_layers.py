"""The parts on their own: a course's exercises, one call each, against references in float64.

The references are written with NumPy, from the formulas, and share no code with the parts.
"""

import math

import numpy as np
import pytest
import torch

import nextword

KINDS = {torch.float64: 1e-6, torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 5e-3}
"""float64 is held to the float32 tables of rotation where there are some."""
LEADING = [(), (3,), (2, 3), (2, 1, 3)]


def given(*size, seed=0):
    return np.random.default_rng(seed).normal(size=size)


def close(found, expected, kind):
    scale = np.abs(expected).max()
    assert found.dtype == kind
    assert found.shape == expected.shape
    assert np.abs(found.double().detach().numpy() - expected).max() <= KINDS[kind] * scale


def filled(layer, kind):
    """Give each parameter random values that bfloat16 holds exactly; return them as arrays."""
    values = {}
    with torch.no_grad():
        for number, (name, weight) in enumerate(layer.named_parameters()):
            value = torch.tensor(given(*weight.shape, seed=number + 5)).bfloat16().double()
            weight.copy_(value)
            values[name] = value.numpy()
    return layer.to(kind), values


def rounded(x):
    return torch.tensor(x).bfloat16().double().numpy()


def silu(x):
    return x / (1 + np.exp(-x))


def softmax(x):
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def normed(x, weight, eps=1e-6):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * weight


def turned(x, positions, theta=10_000.0, *, interleaved=False):
    half = x.shape[-1] // 2
    angles = positions[:, None] * theta ** (-2 * np.arange(half) / x.shape[-1])
    pair = (x[..., 0::2], x[..., 1::2]) if interleaved else (x[..., :half], x[..., half:])
    as_complex = (pair[0] + 1j * pair[1]) * np.exp(1j * angles)
    if not interleaved:
        return np.concatenate([as_complex.real, as_complex.imag], axis=-1)
    out = np.empty_like(x)
    out[..., 0::2], out[..., 1::2] = as_complex.real, as_complex.imag
    return out


def attended(q, k, v, mask=None):
    scores = q @ np.swapaxes(k, -1, -2) / math.sqrt(q.shape[-1])
    return softmax(scores if mask is None else np.where(mask, scores, -np.inf)) @ v


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("leading", LEADING, ids=str)
class TestOnAnyShapeAndType:
    def test_linear(self, leading, kind):
        layer, weights = filled(nextword.Linear(6, 5), kind)
        x = rounded(given(*leading, 6))
        close(layer(torch.tensor(x).to(kind)), x @ weights["weight"].T, kind)

    def test_rms_norm(self, leading, kind):
        layer, weights = filled(nextword.RMSNorm(6), kind)
        x = rounded(given(*leading, 6))
        close(layer(torch.tensor(x).to(kind)), normed(x, weights["weight"]), kind)

    def test_swiglu(self, leading, kind):
        layer, w = filled(nextword.FeedForward(6, 8), kind)
        x = rounded(given(*leading, 6))
        inner = silu(x @ w["gate_proj.weight"].T) * (x @ w["up_proj.weight"].T)
        close(layer(torch.tensor(x).to(kind)), inner @ w["down_proj.weight"].T, kind)

    @pytest.mark.parametrize("interleaved", [False, True])
    def test_rope(self, leading, kind, interleaved):
        x = rounded(given(*leading, 7, 8))
        tables = (table.to(kind) for table in nextword.rotary_tables(7, 8))
        found = nextword.apply_rotary(torch.tensor(x).to(kind), *tables, interleaved=interleaved)
        close(found, turned(x, np.arange(7), interleaved=interleaved), kind)

    def test_attention_with_a_mask(self, leading, kind):
        q, k, v = (rounded(given(*leading, 4, 5, 8, seed=n)) for n in range(3))
        mask = given(5, 5, seed=9) > -1
        mask[:, 0] = True
        parts = (torch.tensor(one).to(kind) for one in (q, k, v))
        found = nextword.attention(*parts, torch.tensor(mask))
        close(found, attended(q, k, v, mask), kind)


def test_attention_is_causal_where_asked_and_groups_heads():
    q, k, v = given(2, 4, 5, 8), given(2, 2, 5, 8, seed=1), given(2, 2, 5, 8, seed=2)
    found = nextword.attention(*map(torch.tensor, (q, k, v)), causal=True)
    wide = (np.repeat(one, 2, axis=1) for one in (k, v))
    close(found, attended(q, *wide, np.tril(np.ones((5, 5), dtype=bool))), torch.float64)
    late = nextword.attention(*map(torch.tensor, (q[:, :, 3:], k, v)), causal=True)
    close(late, found[:, :, 3:].numpy(), torch.float64)  # two positions after three in a cache


def self_attention(x, w, heads, head, *, qk_norm, causal):
    def split(name):
        rows = x @ w[f"{name}_proj.weight"].T
        return np.swapaxes(rows.reshape(*x.shape[:-1], -1, head), -2, -3)

    q, k, v = split("q"), split("k"), split("v")
    if qk_norm:
        q, k = normed(q, w["q_norm.weight"]), normed(k, w["k_norm.weight"])
    q, k = (turned(one, np.arange(x.shape[-2])) for one in (q, k))
    k, v = (np.repeat(one, heads // one.shape[-3], axis=-3) for one in (k, v))
    length = x.shape[-2]
    mask = np.tril(np.ones((length, length), dtype=bool)) if causal else None
    mixed = np.swapaxes(attended(q, k, v, mask), -2, -3)
    return mixed.reshape(*x.shape[:-1], -1) @ w["o_proj.weight"].T


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize(("keys", "qk_norm", "causal"), [(4, False, True), (2, True, False)])
def test_multi_head_self_attention(kind, keys, qk_norm, causal):
    layer = nextword.Attention(16, 4, keys, 6, qk_norm=qk_norm, causal=causal)
    layer, w = filled(layer, kind)
    x = rounded(given(2, 7, 16))
    tables = (table[:, None].to(kind) for table in nextword.rotary_tables(7, 6))
    found = layer(torch.tensor(x).to(kind), *tables)
    close(found, self_attention(x, w, 4, 6, qk_norm=qk_norm, causal=causal), kind)


@pytest.mark.parametrize("leading", [(), (2,), (2, 3)], ids=str)
def test_self_attention_takes_any_leading_shape(leading):
    layer, w = filled(nextword.Attention(16, 4, 2), torch.float64)
    x = rounded(given(*leading, 7, 16))
    tables = [table[:, None].double() for table in nextword.rotary_tables(7, 4)]
    found = layer(torch.tensor(x), *tables)
    close(found, self_attention(x, w, 4, 4, qk_norm=True, causal=True), torch.float64)
    with torch.no_grad():
        close(layer(torch.tensor(x), *tables), found.detach().numpy(), torch.float64)


SHAPE = {
    "vocab_size": 30, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8, "context": 9,
}  # fmt: skip


def block(x, w, shape):
    def part(name):
        return {k.removeprefix(name): v for k, v in w.items() if k.startswith(name)}

    before = normed(x, w["input_layernorm.weight"])
    x = x + self_attention(before, part("self_attn."), 2, 8, qk_norm=shape.qk_norm, causal=True)
    after, m = normed(x, w["post_attention_layernorm.weight"]), part("mlp.")
    inner = silu(after @ m["gate_proj.weight"].T) * (after @ m["up_proj.weight"].T)
    return x + inner @ m["down_proj.weight"].T


def test_an_embedding():
    model, w = filled(nextword.Transformer(nextword.Shape(**SHAPE)), torch.float64)
    ids = np.random.default_rng(0).integers(0, 30, (2, 3, 4))
    found = model.model.embed_tokens(torch.tensor(ids))
    close(found, w["model.embed_tokens.weight"][ids], torch.float64)


def test_a_block():
    shape = nextword.Shape(**SHAPE)
    layer, w = filled(nextword.Block(shape, 0), torch.float64)
    tables = (table[:, None].double() for table in nextword.rotary_tables(9, 8))
    x = rounded(given(2, 9, 16))
    close(layer(torch.tensor(x), *tables), block(x, w, shape), torch.float64)


@pytest.mark.parametrize("qk_norm", [True, False])
def test_a_language_model(qk_norm):
    shape = nextword.Shape(**SHAPE, qk_norm=qk_norm, tie_word_embeddings=False)
    model, w = filled(nextword.Transformer(shape).double(), torch.float64)
    ids = np.random.default_rng(0).integers(0, 30, (2, 9))
    x = w["model.embed_tokens.weight"][ids]
    for number in range(2):
        name = f"model.layers.{number}."
        x = block(x, {k.removeprefix(name): v for k, v in w.items() if k.startswith(name)}, shape)
    expected = normed(x, w["model.norm.weight"]) @ w["lm_head.weight"].T
    close(model(torch.tensor(ids)), expected, torch.float64)


@pytest.mark.parametrize("far", [0.0, 1e4])
def test_cross_entropy(far):
    logits, targets = given(6, 11) * 3 + far, np.random.default_rng(1).integers(0, 11, 6)
    expected = -np.log(softmax(logits)[np.arange(6), targets]).mean()
    found = nextword.cross_entropy(torch.tensor(logits), torch.tensor(targets))
    assert float(found) == pytest.approx(expected, rel=1e-9)
    hidden, weight = given(6, 4, seed=2), given(11, 4, seed=3)
    expected = -np.log(softmax(hidden @ weight.T)[np.arange(6), targets]).mean()
    parts = (torch.tensor(one) for one in (hidden, weight, targets))
    assert float(nextword.linear_cross_entropy(*parts)) == pytest.approx(expected, rel=1e-9)
