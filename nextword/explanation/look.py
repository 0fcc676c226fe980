"""Looks at a model while it trains: a sample, one place of the hold-out, the floor."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from nextword.corpus.builtin import known_floor
from nextword.explanation.render import Floor, Look
from nextword.model.transformer import Transformer
from nextword.prediction.evaluate import Evaluation
from nextword.prediction.generate import Reader, generate
from nextword.prediction.options import GenerationSettings
from nextword.vocabulary.encode import Prepared
from nextword.vocabulary.tokenizer import Vocabulary

SAMPLE_TOKENS = 48


def write_sample(
    model: Transformer, vocabulary: Vocabulary, settings: GenerationSettings, step: int
) -> str:
    """Let the model write a little, at full precision, from a seed of its own."""
    short = replace(settings, max_tokens=SAMPLE_TOKENS, seed=step, samples=1)
    with _at_full_precision(model):
        return "".join(chosen.text for chosen in generate(model, vocabulary, "", short))


def look_at_holdout(model: Transformer, prepared: Prepared, step: int) -> Look | None:
    """Take one place of one hold-out text: what did the model expect, and what came?"""
    holdout, vocabulary = prepared.holdout, prepared.vocabulary
    ids = holdout.document(step % holdout.num_documents)[: model.shape.context].tolist()
    place = min(len(ids) - 1, SAMPLE_TOKENS // 2)
    if place < 1:
        return None
    with _at_full_precision(model):
        logits = Reader(model).read([vocabulary.end_id, *ids[:place]])
    probabilities = logits.double().softmax(0)
    likeliest = int(probabilities.argmax())
    return Look(
        vocabulary.decode(ids[:place]),
        vocabulary.piece(likeliest),
        float(probabilities[likeliest]),
        vocabulary.piece(ids[place]),
        float(probabilities[ids[place]]),
    )


def floor_of(prepared: Prepared, scores: Evaluation) -> Floor | None:
    """Return the lowest loss possible on a hold-out, over the same tokens; None where not known."""
    holdout, vocabulary = prepared.holdout, prepared.vocabulary
    documents = (holdout.document(number).tolist() for number in range(scores.documents))
    nats = known_floor(prepared.facts["corpus"], map(vocabulary.decode, documents))
    return None if nats is None else Floor(nats / scores.tokens)


@contextmanager
def _at_full_precision(model: Transformer) -> Iterator[None]:
    before = model.precision
    model.set_precision(torch.float32)
    try:
        yield
    finally:
        model.set_precision(before)
