"""Training begins with the odds of pairs that counting gives."""

import json

import numpy as np
import pytest
import torch

import nextword
from nextword.base.errors import ModelError, SettingsError
from nextword.model.bigrams import Bigrams, begin_with_bigrams
from nextword.model.initialize import initialize
from nextword.model.shape import Shape
from nextword.model.transformer import Transformer
from nextword.prediction.ngram import KneserNey

SIZES = {
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "context": 16,
}


def markov(size, length, seed=0):
    """Draw a text in which the last token alone decides what may follow."""
    source = np.random.default_rng(seed)
    odds = source.dirichlet(np.full(size, 0.1), size)
    text = [0]
    for _ in range(length - 1):
        text.append(source.choice(size, p=odds[text[-1]]))
    return np.array(text)


def counted(text, size):
    model = KneserNey(2, size, 0).learn([text])
    pairs = model.pairs()
    parts = (torch.from_numpy(part) for part in pairs)
    x, y, *rest = parts
    frequency = torch.bincount(torch.from_numpy(text), minlength=size) / len(text)
    return model, Bigrams(x, y, *(part.float() for part in rest), frequency.float())


def network(size, width, *, tied=False):
    shape = Shape(
        vocab_size=size, hidden_size=width, head_dim=width, tie_word_embeddings=tied, **SIZES
    )
    model = Transformer(shape)
    initialize(model, 0)
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.detach().zero_()
    return model


def test_pairs_are_the_distributions_that_the_counts_give():
    size = 11
    model, bigrams = counted(markov(size, 300), size)
    rows = bigrams.rows(torch.arange(size))
    for x in range(size):
        np.testing.assert_allclose(rows[x].numpy(), model.distribution([x]), rtol=1e-5)
    some = torch.tensor([2, 5, 9])
    assert torch.equal(bigrams.rows(some), rows[some])


@pytest.mark.parametrize(("size", "lost"), [(20, 0.02), (60, 0.02), (300, 0.15)])
@torch.no_grad()
def test_a_network_begins_with_these_odds_as_nearly_as_its_width_allows(size, lost):
    text = markov(size, 20_000)
    _, bigrams = counted(text, size)
    network_ = network(size, 64)
    begin_with_bigrams(network_, bigrams, 0)
    held = torch.from_numpy(markov(size, 4_000)[-2_000:].copy())
    logits = network_(held.view(-1, 16)[:, :-1]).flatten(0, 1)
    targets = held.view(-1, 16)[:, 1:].flatten()
    begun = float(torch.nn.functional.cross_entropy(logits, targets))
    before = held.view(-1, 16)[:, :-1].flatten()
    exact = bigrams.rows(torch.arange(size))[before, targets].log().neg().mean()
    # These odds are drawn, and so of full rank: the worst case for 64 coordinates.
    assert begun < float(exact) + lost * (np.log(size) - float(exact))


@torch.no_grad()
def test_what_attention_writes_back_makes_that_token_likelier():
    size = 60
    _, bigrams = counted(markov(size, 20_000), size)
    model = network(size, 64)
    initialize(model, 0)
    begin_with_bigrams(model, bigrams, 0)
    layer = model.model.layers[0].self_attn
    read = torch.nn.functional.rms_norm(model.model.embed_tokens.weight, (64,))
    added = layer.o_proj(layer.v_proj(read)) @ model.lm_head.weight.T  # (read, likelier)
    added -= added.mean(dim=1, keepdim=True)
    likelier = (added.argmax(dim=1) == torch.arange(size)).float() @ bigrams.frequency
    assert float(likelier) > 0.9


def test_odds_need_a_head_of_their_own():
    _, bigrams = counted(markov(20, 500), 20)
    with pytest.raises(ModelError, match="head of its own"):
        begin_with_bigrams(network(20, 16, tied=True), bigrams, 0)


@pytest.fixture
def text(place):
    words = markov(40, 6_000)
    spelled = [chr(97 + number % 26) * (1 + number // 26) for number in words]
    (place.folder / "a.txt").write_text(" ".join(spelled))
    return place.folder / "a.txt"


def first_evaluation(place, name):
    lines = (place.folder / "runs" / name / "metrics.jsonl").read_text().splitlines()
    return next(event for event in map(json.loads, lines) if event["event"] == "evaluation")


def test_ones_own_text_begins_there_and_says_so_in_its_settings(place, text):
    options = {"training.steps": 1, "training.learning_rate": 1e-9}
    options["training.matrix_learning_rate"] = 1e-9
    counted_ = nextword.train(str(text), name="counted", options=options)
    asked = {**options, "training.initialization": "random"}
    random = nextword.train(str(text), name="random", options=asked)
    assert not counted_.opened.model.shape.tie_word_embeddings
    assert random.opened.model.shape.tie_word_embeddings
    losses = [first_evaluation(place, name)["eval_loss"] for name in ("counted", "random")]
    assert losses[0] < losses[1] - 1.0
    written = (place.folder / "runs" / "counted" / "settings.toml").read_text()
    assert 'initialization = "bigram"' in written


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"objective.name": "masked"}, "reads both sides"),
        ({"model.tie_word_embeddings": True}, "leave model.tie_word_embeddings out"),
    ],
)
def test_where_odds_cannot_be_given_it_is_said(place, text, options, words):
    with pytest.raises(SettingsError, match=words):
        nextword.train(str(text), options={**options, "training.initialization": "bigram"})
    assert not (place.folder / "runs").exists()


def test_weights_from_elsewhere_are_not_begun_anew(place, text):
    nextword.train(str(text), name="a", options={"training.steps": 1})
    with pytest.raises(SettingsError, match="are that model's"):
        nextword.train(
            str(text), name="b", start="a", options={"training.initialization": "bigram"}
        )
    assert not (place.folder / "runs" / "b").exists()
    more = nextword.train(str(text), name="c", start="a", options={"training.steps": 1})
    assert not more.opened.model.shape.tie_word_embeddings


def test_where_training_begins_is_said_of_a_new_run_only(place, text):
    said = "begins with the odds of pairs of tokens"
    new = place.nextword("train", str(text), "--name", "a", "--training.steps", "2")
    assert said in new.stderr
    more = place.nextword("train", "--resume", "a", "--training.steps", "3")
    assert more.returncode == 0, more.stderr
    assert said not in more.stderr
    random = ("--training.initialization", "random", "--training.steps", "2")
    assert said not in place.nextword("train", str(text), *random).stderr
