"""An audit beside a network written in NumPy, and beside finite differences."""

import copy
import json
import math
import re

import numpy as np
import pytest
import torch

import nextword
from nextword.base.errors import EvaluationError
from nextword.explanation.audit import audit
from nextword.rendering.audit import audit_html, describe_audit
from nextword.rendering.curve import log_curve_text, nice_steps

SENTENCE = "We are all humans born to make mistakes"


@pytest.fixture
def model(shared_environment, small_run):
    return nextword.load(small_run)


def numpy_logits(network, ids):
    """The whole network in float64 NumPy, from its weights alone: logits (T, V)."""
    shape = network.shape
    w = {name: value.detach().double().numpy() for name, value in network.named_parameters()}

    def norm(x, weight):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + shape.rms_norm_eps) * weight

    head, time = shape.head_dim, len(ids)
    angles = np.arange(time)[:, None] / shape.rope_theta ** (np.arange(0, head, 2) / head)
    cosine, sine = np.cos(angles)[:, None], np.sin(angles)[:, None]

    def turn(x):
        first, second = x[..., : head // 2], x[..., head // 2 :]
        return np.concatenate(
            [first * cosine - second * sine, second * cosine + first * sine], axis=-1
        )

    x = w["model.embed_tokens.weight"][ids]
    for layer in range(shape.num_hidden_layers):
        p = f"model.layers.{layer}."
        y = norm(x, w[p + "input_layernorm.weight"])
        q, k, v = (
            (y @ w[p + f"self_attn.{name}_proj.weight"].T).reshape(time, -1, head) for name in "qkv"
        )
        q = turn(norm(q, w[p + "self_attn.q_norm.weight"]))
        k = turn(norm(k, w[p + "self_attn.k_norm.weight"]))
        share = q.shape[1] // k.shape[1]
        k, v = np.repeat(k, share, axis=1), np.repeat(v, share, axis=1)
        scores = np.einsum("qhd,khd->hqk", q, k) / math.sqrt(head)
        scores[:, np.triu(np.ones((time, time), dtype=bool), 1)] = -np.inf
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        mixed = np.einsum("hqk,khd->qhd", scores, v).reshape(time, -1)
        x = x + mixed @ w[p + "self_attn.o_proj.weight"].T
        y = norm(x, w[p + "post_attention_layernorm.weight"])
        gate, up = y @ w[p + "mlp.gate_proj.weight"].T, y @ w[p + "mlp.up_proj.weight"].T
        x = x + (gate / (1 + np.exp(-gate)) * up) @ w[p + "mlp.down_proj.weight"].T
    return norm(x, w["model.norm.weight"]) @ w["model.embed_tokens.weight"].T


def test_every_number_is_that_of_an_independent_computation(model):
    vocabulary = model.vocabulary
    ids = vocabulary.encode(SENTENCE)
    found = model.audit(SENTENCE, token=7, top=6)
    logits = numpy_logits(model.opened.model, [vocabulary.end_id, *ids])[6]
    right = ids[6]
    p = np.exp(logits) / np.exp(logits).sum()
    y = np.eye(len(p))[right]
    assert found.target.id == right
    assert found.context == vocabulary.decode(ids[:6])
    for entry in (*found.likeliest, found.target, found.least):
        assert entry.logit == pytest.approx(logits[entry.id], abs=1e-6)
        assert entry.probability == pytest.approx(p[entry.id], rel=1e-6)
        assert entry.exponential == pytest.approx(np.exp(logits[entry.id]), rel=1e-6)
        assert entry.gradient == pytest.approx(p[entry.id] - y[entry.id], abs=1e-7)
    assert [entry.id for entry in found.likeliest] == np.argsort(-logits)[:6].tolist()
    assert found.least.id == int(np.argmin(logits))
    assert found.total == pytest.approx(np.exp(logits).sum(), rel=1e-6)
    shown = {right, *(entry.id for entry in found.likeliest)}
    rest = [id_ for id_ in range(len(p)) if id_ not in shown]
    assert found.others_exponential == pytest.approx(np.exp(logits[rest]).sum(), rel=1e-6)
    assert found.probability_sum == pytest.approx(1.0, abs=1e-12)
    assert found.nats == pytest.approx(-math.log(p[right]), abs=1e-7)
    assert found.bits == pytest.approx(-math.log2(p[right]), abs=1e-7)
    assert found.digits == pytest.approx(-math.log10(p[right]), abs=1e-7)
    assert found.squared_error == pytest.approx(((p - y) ** 2).sum(), abs=1e-7)


def test_the_gradients_are_finite_differences(model):
    vocabulary = model.vocabulary
    ids = vocabulary.encode(SENTENCE)
    found = model.audit(SENTENCE, token=7)
    logits = numpy_logits(model.opened.model, [vocabulary.end_id, *ids])[6]
    right, step = ids[6], 1e-5

    def losses(z):
        p = np.exp(z) / np.exp(z).sum()
        return np.array([-np.log(p[right]), ((p - np.eye(len(p))[right]) ** 2).sum()])

    for entry in (*found.likeliest, found.target):
        moved = np.eye(len(logits))[entry.id] * step
        slope = (losses(logits + moved) - losses(logits - moved)) / (2 * step)
        assert entry.gradient == pytest.approx(slope[0], abs=1e-7)
        if entry.id == right:
            assert found.squared_error_gradient == pytest.approx(slope[1], abs=1e-7)


def test_the_step_is_gradient_descent_and_the_prediction_its_slope(model):
    vocabulary, network = model.vocabulary, copy.deepcopy(model.opened.model)
    whole = [vocabulary.end_id, *vocabulary.encode(SENTENCE)]

    def loss(of):
        table = numpy_logits(of, whole[:-1])
        norm = np.log(np.exp(table).sum(-1))
        return float((norm - table[np.arange(len(whole) - 1), whole[1:]]).mean())

    found = model.audit(SENTENCE, token=7).step
    assert found.before == pytest.approx(loss(network), abs=1e-6)
    assert found.predicted == pytest.approx(-0.01 * found.before, rel=1e-9)
    assert found.weights == network.shape.parameters()
    # The slope along the gradient, by finite differences in each of its directions at once.
    exact = copy.deepcopy(network).double()
    exact.set_precision(torch.float64)
    ids = torch.tensor([whole])
    torch.nn.functional.cross_entropy(exact(ids[:, :-1])[0].double(), ids[0, 1:]).backward()
    gradients = [weight.grad.clone() for weight in exact.parameters()]
    squared = sum(float((g**2).sum()) for g in gradients)
    assert found.squared_gradient == pytest.approx(squared, rel=1e-3)
    for sign, expected in ((1, found.after), (-1, None)):
        moved = copy.deepcopy(network).double()
        with torch.no_grad():
            for weight, gradient in zip(moved.parameters(), gradients, strict=True):
                weight -= sign * found.rate * gradient
        if expected is not None:
            assert loss(moved) == pytest.approx(expected, abs=1e-5)
    tiny = model.audit(SENTENCE, token=7, rate=found.rate * 1e-4).step
    assert tiny.change == pytest.approx(tiny.predicted, rel=1e-3)


def test_the_model_stays_as_it_was(model):
    before = [weight.clone() for weight in model.opened.model.parameters()]
    model.audit(SENTENCE)
    for weight, old in zip(model.opened.model.parameters(), before, strict=True):
        assert torch.equal(weight, old)


def test_without_a_token_the_greatest_surprise_is_taken(model):
    judged = model.explain(SENTENCE)
    hardest = max(judged.positions[1:], key=lambda position: position.nats)
    assert model.audit(SENTENCE).place == hardest.number
    assert model.audit("W").place == 1


@pytest.mark.parametrize("scale", [2e3, 2e5])
def test_large_logits_are_shifted_and_what_is_too_small_is_said(model, scale):
    network = copy.deepcopy(model.opened.model)
    with torch.no_grad():
        network.model.embed_tokens.weight *= scale
    found = audit(network, model.vocabulary, SENTENCE, token=7)
    assert found.shift > 300
    assert found.least.probability == 0.0
    assert found.least_log10 < -308
    assert math.isfinite(found.nats)
    said = describe_audit(found)
    assert "too small for a computer's number" in " ".join(said.split())
    assert "inf" not in said.replace("infinit", "")
    assert "nan" not in said


def test_the_words_can_be_checked_by_hand(model):
    found = model.audit(SENTENCE, token=7)
    said = describe_audit(found)
    ratio = re.search(r"P\(.*?\) ÷ P\(.*?\) = (\S+) = e\^\((\S+) − (\S+)\)", said)
    assert float(ratio[1]) == pytest.approx(math.exp(float(ratio[2]) - float(ratio[3])), rel=1e-3)
    before, predicted, came, after = (
        float(re.search(rf"{name} +([-+]?\d\S+)", said)[1])
        for name in (
            "sentence before",
            "predicted change",
            "change that came",
            "loss of the sentence after",
        )
    )
    assert before + came == pytest.approx(after, abs=2e-6)
    assert predicted == pytest.approx(came, rel=0.2)
    assert "<script" not in audit_html(found)
    assert found._repr_html_() == audit_html(found)


def test_the_point_stands_on_the_curve():
    for p in (0.02, 0.2, 0.5869, 0.97):
        lines = log_curve_text(p)
        row = next(line for line in lines if "●" in line)
        assert float(row.split("│")[0]) == pytest.approx(-math.log(p), abs=0.32)
        assert row.split("│")[1].index("●") / 50 == pytest.approx(p, abs=0.011)


def test_round_numbers_stand_at_the_axes():
    assert nice_steps(0, 10) == [0, 2, 4, 6, 8, 10]
    assert nice_steps(0.3, 0.9) == [0.4, 0.6, 0.8]
    assert nice_steps(1, 1) == [1]


@pytest.mark.parametrize(
    ("text", "token", "words"),
    [("", None, "empty"), (SENTENCE, 99, "--token 99"), (SENTENCE * 60, None, "at once")],
)
def test_wrong_input_is_refused(model, text, token, words):
    with pytest.raises(EvaluationError, match=words):
        model.audit(text, token=token)


def test_the_verb_prints_text_and_json(shared, small_run):
    done = shared.nextword("audit", small_run, SENTENCE, "--token", "7")
    assert done.returncode == 0, done.stderr
    assert "gradient descent" in done.stdout
    values = json.loads(shared.nextword("audit", small_run, SENTENCE, "--json").stdout)
    assert values["step"]["change"] == pytest.approx(values["step"]["predicted"], rel=0.2)
