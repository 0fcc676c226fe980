import pytest
import torch

from nextword.prediction.candidates import predict
from nextword.prediction.generate import Reader, generate
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
