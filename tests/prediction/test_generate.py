import pytest
import torch

from nextword.model import decode
from nextword.prediction import generate as generation
from nextword.prediction.candidates import predict
from nextword.prediction.generate import Reader, generate, generate_several, in_order
from nextword.prediction.options import GenerationSettings
from nextword.vocabulary.options import VocabularySettings
from nextword.vocabulary.train import train_vocabulary
from tests.model.test_transformer import SHAPE, scattered

VOCABULARY = train_vocabulary(
    ["abcdefghijklmnopqrstuvwxyz .,!?" * 3], 100, VocabularySettings(kind="char")
)


def model():
    from nextword.model.shape import Shape

    return scattered(Shape(**{**SHAPE.__dict__, "vocab_size": len(VOCABULARY)}))


def text(settings, prompt="abc", **kwargs):
    return "".join(
        chosen.text for chosen in generate(model(), VOCABULARY, prompt, settings, **kwargs)
    )


def uncached(network, ids):
    """What the reader's window holds after these ids, by the rule.

    Full → the later half is read again.
    """
    context, window = network.shape.context, []
    for id_ in ids:
        if len(window) == context:
            window = window[-(context // 2) :]
        window.append(id_)
    return network(torch.tensor([window]))[0, -1]


def test_every_logit_equals_the_uncached_one_also_past_the_context():
    network = model()
    ids = torch.randint(
        0, len(VOCABULARY), (80,), generator=torch.Generator().manual_seed(0)
    ).tolist()
    reader = Reader(network)
    for place, id_ in enumerate(ids):
        found = reader.read([id_])
        torch.testing.assert_close(found, uncached(network, ids[: place + 1]), atol=3e-5, rtol=1e-4)


@pytest.mark.parametrize("copied", [0, 1 << 30])
def test_matrices_that_threads_divide_give_the_same_logits(monkeypatch, copied):
    monkeypatch.setattr(decode, "WORTH_DIVIDING", 1)
    monkeypatch.setattr(decode, "COPIED_BYTES", copied)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    network = model()
    reader, ids = Reader(network), [3, 9, 4, 4, 8, 1]
    layer = reader.decoder.layers[0]
    assert layer.down.parts.is_contiguous() is bool(copied)
    assert all(
        matrix.parts is not None
        for matrix in (layer.projections, layer.gather, layer.gate_and_up, layer.down)
    )
    for place, id_ in enumerate(ids):
        found = reader.read([id_])
        torch.testing.assert_close(found, uncached(network, ids[: place + 1]), atol=3e-5, rtol=1e-4)
    reader.select([0, 0, 0])
    for row, logits in enumerate(reader.read_each([5, 6, 7])):
        wanted = uncached(network, [*ids, 5 + row])
        torch.testing.assert_close(logits, wanted, atol=3e-5, rtol=1e-4)


def test_reading_at_once_or_one_by_one_is_the_same():
    network = model()
    ids = torch.randint(
        0, len(VOCABULARY), (60,), generator=torch.Generator().manual_seed(1)
    ).tolist()
    one_by_one = Reader(network)
    for id_ in ids:
        last = one_by_one.read([id_])
    torch.testing.assert_close(Reader(network).read(ids), last, atol=3e-5, rtol=1e-4)


def test_the_same_seed_writes_the_same_text_and_samples_differ():
    settings = GenerationSettings(seed=4, max_tokens=30, temperature=1.0, min_p=0.0)
    assert text(settings) == text(settings)
    assert text(settings) != text(settings, sample=1)


@pytest.mark.parametrize("at_once", [32, 2])
@pytest.mark.parametrize("grouped", [False, True])
def test_texts_side_by_side_are_those_written_one_by_one(monkeypatch, at_once, grouped):
    """Longer than the context, some ended by a stop string, some by end-of-text."""
    monkeypatch.setattr(generation, "SIDE_BY_SIDE", at_once)
    from nextword.model.shape import Shape

    heads = {} if grouped else {"num_key_value_heads": SHAPE.num_attention_heads}
    network = scattered(Shape(**{**SHAPE.__dict__, "vocab_size": len(VOCABULARY), **heads}))
    assert (network.shape.num_key_value_heads < network.shape.num_attention_heads) == grouped
    settings = GenerationSettings(
        seed=4, samples=5, max_tokens=90, temperature=1.0, min_p=0.0, repetition_penalty=1.1
    )
    several = [[] for _ in range(5)]
    for sample, chosen in generate_several(network, VOCABULARY, "abc", settings, stop=["ab"]):
        several[sample].append(chosen)
    alone = [
        list(generate(network, VOCABULARY, "abc", settings, sample=sample, stop=["ab"]))
        for sample in range(5)
    ]
    for together, single in zip(several, alone, strict=True):
        assert together.pop() is None
        assert [one.text for one in together] == [one.text for one in single]
        for one, other in zip(together, single, strict=True):
            torch.testing.assert_close(one.logits, other.logits, atol=3e-5, rtol=1e-4)
    assert len({len(text) for text in alone}) > 1
    assert max(map(len, alone)) > network.shape.context


def test_no_tokens_end_at_once():
    settings = GenerationSettings(samples=2, max_tokens=0)
    assert list(generate_several(model(), VOCABULARY, "a", settings)) == [(0, None), (1, None)]


def test_texts_that_grow_side_by_side_come_one_after_the_other():
    mixed = [(0, "a"), (2, "x"), (1, "m"), (0, "b"), (1, None), (0, None), (2, "y"), (2, None)]
    seen = []

    def source():
        for piece in mixed:
            yield piece
            seen.append(list(found))

    found = []
    for piece in in_order(source(), 3):
        found.append(piece)
    assert found == sorted(mixed, key=lambda piece: piece[0])
    assert seen[0] == [(0, "a")]  # as it grows
    assert seen[3] == [(0, "a"), (0, "b")]


def test_greedy_takes_the_likeliest():
    chosen = list(
        generate(model(), VOCABULARY, "abc", GenerationSettings(temperature=0, max_tokens=5))
    )
    assert all(int(token.logits.argmax()) == token.id for token in chosen)


def test_at_most_so_many_tokens():
    assert (
        len(list(generate(model(), VOCABULARY, "", GenerationSettings(max_tokens=7, seed=0)))) <= 7
    )


def test_a_stop_string_ends_the_text_and_is_not_written():
    settings = GenerationSettings(seed=4, max_tokens=40, temperature=1.0, min_p=0.0)
    whole = text(settings)
    stop = whole[10:13]
    assert text(settings, stop=[stop]) == whole[: whole.index(stop)]
    assert text(settings, stop=["not in it"]) == whole


def test_candidates_are_sorted_and_sum_to_one_with_the_rest():
    prediction = predict(model(), VOCABULARY, "abc", top=5)
    probabilities = [candidate.probability for candidate in prediction.candidates]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) + prediction.rest == pytest.approx(1.0)
    logits = model()(torch.tensor([[VOCABULARY.end_id, *VOCABULARY.encode("abc")]]))[0, -1].detach()
    assert prediction.candidates[0].logit == pytest.approx(float(logits.max()), abs=1e-4)
