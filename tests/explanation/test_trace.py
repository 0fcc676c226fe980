"""A judged text agrees with the network's own probabilities, and its words with its numbers."""

import json
import math
import re

import pytest
import torch

import nextword
from nextword.base.errors import EvaluationError
from nextword.explanation.trace import Guess, Position, Trace
from nextword.loss.cross_entropy import cross_entropy, log_softmax
from nextword.rendering.heat import heat, heat_ansi
from nextword.rendering.trace import describe_trace, trace_html

SENTENCE = "We are all humans born to make mistakes"


@pytest.fixture
def model(shared_environment, small_run):
    return nextword.load(small_run)


def probabilities(model, ids):
    with torch.no_grad():
        logits = model.opened.model(torch.tensor([[model.vocabulary.end_id, *ids]]))[0]
    return log_softmax(logits.double())


def test_each_position_is_the_networks_own_probability(model):
    ids = model.vocabulary.encode(SENTENCE)
    table = probabilities(model, ids)
    judged = model.explain(SENTENCE, top=4)
    assert [position.id for position in judged.positions] == ids
    for place, position in enumerate(judged.positions):
        row = table[place]
        assert position.nats == pytest.approx(-float(row[ids[place]]), abs=2e-5)
        assert position.probability == pytest.approx(math.exp(-position.nats), rel=1e-12)
        assert position.rank == 1 + int((row > row[ids[place]]).sum())
        assert position.entropy == pytest.approx(float(-(row.exp() * row).sum()), abs=1e-4)
        assert [guess.id for guess in position.candidates] == row.topk(4).indices.tolist()
        assert position.context == model.vocabulary.decode(ids[:place])
        assert position.seen == place


def test_influence_is_the_length_of_the_gradient(model):
    ids = model.vocabulary.encode(SENTENCE)
    network = model.opened.model
    whole = torch.tensor([[model.vocabulary.end_id, *ids]])
    with torch.no_grad():
        hidden = network.hidden(whole[:, :-1])[0]
    judged = model.explain(SENTENCE)
    for place, position in enumerate(judged.positions):
        state = hidden[place : place + 1].clone().requires_grad_()
        loss = cross_entropy(state @ network.output_weight.T, whole[0, place + 1 : place + 2])
        (gradient,) = torch.autograd.grad(loss, state)
        assert position.influence == pytest.approx(float(gradient.norm()), rel=1e-3)


def test_the_sums_are_those_of_the_positions(model):
    judged = model.explain(SENTENCE)
    nats = sum(position.nats for position in judged.positions)
    assert judged.nats == pytest.approx(nats)
    assert judged.product == pytest.approx(math.exp(-nats), rel=1e-9)
    assert judged.perplexity == pytest.approx(math.exp(nats / len(judged.positions)))
    assert judged.word_perplexity == pytest.approx(math.exp(nats / 8))
    assert judged.bits_per_byte == pytest.approx(nats / math.log(2) / len(SENTENCE))


def test_it_agrees_with_evaluate(model, tmp_path):
    file = tmp_path / "text.txt"
    file.write_text(SENTENCE * 40)
    judged, scores = model.explain(SENTENCE * 40), model.evaluate(file)
    assert len(judged.positions) > model.opened.model.shape.context  # more than one window
    end_token = 1
    assert scores.tokens == len(judged.positions) + end_token
    ids = [position.id for position in judged.positions]
    last = model.vocabulary.end_id
    with torch.no_grad():
        context = model.opened.model.shape.context
        start = len(ids) // context * context
        window = [model.vocabulary.end_id, *ids][start:]
        row = log_softmax(model.opened.model(torch.tensor([window]))[0, -1].double())
    assert judged.nats - float(row[last]) == pytest.approx(scores.nats, rel=1e-5)


def test_words_show_the_numbers_they_are_made_of(model):
    judged = model.explain(SENTENCE, top=2)
    said = describe_trace(judged)
    terms = re.search(r"sum +(.*) = (\S+) nats = (\S+) bits", said)
    assert sum(map(float, terms[1].split(" + "))) == pytest.approx(float(terms[2]), abs=5e-4)
    assert float(terms[2]) / math.log(2) == pytest.approx(float(terms[3]), abs=2e-4)
    average = re.search(r"average +(\S+) ÷ (\d+) pieces = (\S+) nats", said)
    assert float(average[1]) / int(average[2]) == pytest.approx(float(average[3]), abs=1e-4)
    choices = re.search(r"average.*\n.*among (\S+) equally", said)[1].replace(",", "")
    assert math.exp(float(average[3])) == pytest.approx(float(choices), rel=5e-3)
    assert "\x1b" not in said
    assert "\x1b" in describe_trace(judged, color=True)


def made(nats):
    places = tuple(
        Position(n + 1, "a", n, " b", 1, math.exp(-x), x, 1, x, 0.1, (Guess(" b", 1, 0.5),))
        for n, x in enumerate(nats)
    )
    return Trace("a b", "m", 10, places, "")


def test_the_product_underflows_where_a_float_does():
    judged = made([5.0] * 200)  # below e^-745.1 there is only 0.0
    assert judged.product == 0.0
    assert judged.underflows_at == 150
    said = describe_trace(judged)
    assert "from piece 150 on" in said
    assert re.search(r"product .* = 0\.0", said)
    assert judged.nats == pytest.approx(1000.0)
    assert made([5.0] * 149).underflows_at is None


def test_a_short_text_says_how_long_it_would_have_to_be():
    said = describe_trace(made([7.4514]))
    assert re.search(r"over a text 100 times\s+as long", said)


def test_what_html_shows_is_escaped_and_can_be_reached_with_the_keyboard(model):
    judged = model.explain("<script>alert(1)</script> & more")
    page = trace_html(judged)
    assert "<script" not in page
    # Of the pieces one, from which arrows lead on; and each of the two boxes that may scroll.
    assert len(re.findall(r'<span class="piece"[^>]* tabindex="0"', page)) == 1
    assert page.count('tabindex="0"') == 1 + page.count('class="scroll"') == 3
    assert page.count('tabindex="-1"') == len(judged.positions) - 1
    assert judged._repr_html_() == page


def test_heat_rises_with_the_mistake():
    values = [heat(x) for x in (0.0, 0.1, 1.0, 3.0, 7.0, 30.0)]
    assert values == sorted(values)
    assert values[0] == 0
    assert values[-1] == 1
    assert heat_ansi([("a", 0.0)]) == "a"
    assert heat_ansi([("a", 9.0)]) != "a"


def test_an_empty_text_is_refused(model):
    with pytest.raises(EvaluationError, match="empty"):
        model.explain("")


def test_the_verb_prints_text_and_json(shared, small_run):
    done = shared.nextword("explain", small_run, SENTENCE, "--top", "5")
    assert done.returncode == 0, done.stderr
    assert "this is the loss" in done.stdout
    assert done.stdout.count("█") > 0
    done = shared.process("explain", small_run, "-", "--json", stdin=SENTENCE.encode())
    values = json.loads(done.stdout)
    assert [position["piece"] for position in values["positions"]][-1].strip() == "mistakes"
    assert values["nats"] == pytest.approx(sum(p["nats"] for p in values["positions"]))


def test_a_folder_that_transformers_saved_is_explained(tmp_path, model):
    from transformers import Qwen3Config, Qwen3ForCausalLM

    vocabulary = model.vocabulary
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(vocabulary), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, max_position_embeddings=64,
    )  # fmt: skip
    theirs = Qwen3ForCausalLM(config).eval()
    theirs.save_pretrained(tmp_path)
    vocabulary.save(tmp_path)
    judged = nextword.load(tmp_path).explain(SENTENCE)
    ids = vocabulary.encode(SENTENCE)
    with torch.no_grad():
        table = theirs(torch.tensor([[vocabulary.end_id, *ids]])).logits[0].log_softmax(-1)
    for place, position in enumerate(judged.positions):
        assert position.nats == pytest.approx(-float(table[place, ids[place]]), abs=1e-4)
