"""Scores at hidden places are exact and repeatable; pseudo-log-likelihood is what its name says."""

import dataclasses

import numpy as np
import pytest
import torch

from nextword.base.errors import EvaluationError, VocabularyError
from nextword.objectives.masked import choose_places
from nextword.objectives.options import ObjectiveSettings
from nextword.prediction.masked import evaluate_masked, fill, pseudo
from nextword.prediction.options import EvaluationSettings
from nextword.vocabulary.options import VocabularySettings
from nextword.vocabulary.train import train_vocabulary
from tests.model.test_layouts import BOTH
from tests.model.test_transformer import scattered

TEXT = "The cat sat on the mat. A dog met the cat, and both of them ate the hat.\n" * 40
WORDS = train_vocabulary([TEXT], 9000, VocabularySettings(kind="bpe", size=300))
MODEL = scattered(dataclasses.replace(BOTH, vocab_size=len(WORDS), context=24))
LENGTHS = [1, 5, 23, 24, 60, 3, 24]

pytestmark = pytest.mark.usefixtures("one_thread")


class Texts:
    end_id = WORDS.end_id
    document_bytes = np.array(LENGTHS) * 3
    num_documents = len(LENGTHS)

    def document(self, number):
        source = np.random.default_rng(number)
        ids = source.integers(3, len(WORDS), LENGTHS[number])
        ids[-1] = WORDS.end_id
        return ids


def test_it_equals_the_definition_whatever_the_batch_size():
    hiding = ObjectiveSettings(rate=0.3, evaluation_seed=5)
    nats, count = 0.0, 0
    for number in range(len(LENGTHS)):
        whole = np.concatenate([[WORDS.end_id], Texts().document(number)])
        for start in range(0, len(whole), 24):
            window = whole[start : start + 24].copy()
            source = np.random.default_rng((5, number, start))
            places = choose_places(window, WORDS.end_id, 0.3, source)
            wanted = window[places].copy()
            window[places] = WORDS.mask
            with torch.no_grad():
                odds = MODEL(torch.tensor(window)[None])[0].double().log_softmax(-1)
            nats -= sum(float(odds[place, id_]) for place, id_ in zip(places, wanted, strict=True))
            count += len(places)
    for batch_tokens in (1, 60, 10_000):
        settings = EvaluationSettings(batch_tokens=batch_tokens)
        found = evaluate_masked(MODEL, Texts(), WORDS, settings, hiding)
        assert found.tokens == count
        assert found.nats == pytest.approx(nats, rel=1e-5)
    again = evaluate_masked(MODEL, Texts(), WORDS, settings, hiding)
    assert again.nats == found.nats
    other = dataclasses.replace(hiding, evaluation_seed=6)
    assert evaluate_masked(MODEL, Texts(), WORDS, settings, other).nats != found.nats


def test_it_gives_no_perplexity_and_no_bits_per_byte():
    found = evaluate_masked(MODEL, Texts(), WORDS, EvaluationSettings(), ObjectiveSettings())
    values = found.as_dict()
    assert values["perplexity"] is None
    assert values["bits_per_byte"] is None
    assert "not the probability of a text" in values["bits_per_byte_withheld"]
    assert values["asked_for"] == "hidden tokens"


def test_the_pseudo_log_likelihood_hides_every_token_once():
    nats, count = 0.0, 0
    for number in range(len(LENGTHS)):
        whole = [WORDS.end_id, *Texts().document(number).tolist()]
        for start in range(0, len(whole), 24):
            window = whole[start : start + 24]
            for place, id_ in enumerate(window):
                if id_ != WORDS.end_id:
                    hidden = [*window[:place], WORDS.mask, *window[place + 1 :]]
                    with torch.no_grad():
                        odds = MODEL(torch.tensor([hidden]))[0, place].double().log_softmax(-1)
                    nats -= float(odds[id_])
                    count += 1
    found = pseudo(MODEL, WORDS, Texts())
    assert found.tokens == count
    assert found.nats == pytest.approx(nats, rel=1e-5)
    values = found.as_dict()
    assert set(values) >= {"pseudo_log_likelihood", "pseudo_nats_per_token", "pseudo_bits_per_byte"}
    assert "nats_per_token" not in values


def test_candidates_are_softmax_of_the_logits_at_the_place():
    ids = [WORDS.end_id, *WORDS.encode("The cat"), WORDS.mask, *WORDS.encode(" on the mat.")]
    with torch.no_grad():
        odds = MODEL(torch.tensor([ids]))[0, ids.index(WORDS.mask)].double().softmax(-1)
    (place,) = fill(MODEL, WORDS, "The cat [MASK] on the mat.", top=5)
    assert [one.id for one in place.candidates] == odds.argsort(descending=True)[:5].tolist()
    for one in place.candidates:
        assert one.probability == pytest.approx(float(odds[one.id]), rel=1e-5)
        assert one.piece == WORDS.piece(one.id)
    assert place.rest == pytest.approx(1 - sum(one.probability for one in place.candidates))
    assert fill(MODEL, WORDS, f"The cat {WORDS.mask_name} on the mat.", top=5) == (place,)


def test_several_places_are_judged_apart():
    found = fill(MODEL, WORDS, "[MASK] cat [MASK] on", top=3)
    assert [place.before for place in found] == ["", "[MASK] cat "]
    assert len(found) == 2


def test_what_cannot_be_filled_is_said():
    with pytest.raises(EvaluationError, match="has no \\[MASK\\]"):
        fill(MODEL, WORDS, "The cat sat.")
    with pytest.raises(EvaluationError, match="reads 24 at once"):
        fill(MODEL, WORDS, "The cat [MASK] " * 20)
    unpadded = type(WORDS)(WORDS.tokenizer, "bpe", (WORDS.reserved[0], None, WORDS.reserved[2]))
    assert unpadded.pad_id is None
    assert unpadded.mask == WORDS.mask
    plain = type(WORDS)(WORDS.tokenizer, "bpe", WORDS.reserved[:2])
    with pytest.raises(VocabularyError, match="mask_token"):
        fill(MODEL, plain, "The [MASK]")
