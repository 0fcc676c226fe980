"""Previews of a model while it trains: a sample, one place of the hold-out, the floor."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from nextword.corpus.builtin import known_floor
from nextword.model.transformer import Transformer
from nextword.prediction.evaluate import Evaluation
from nextword.prediction.generate import generate
from nextword.prediction.options import GenerationSettings
from nextword.prediction.scoring import states_of_each
from nextword.vocabulary.prepared import Prepared
from nextword.vocabulary.tokenizer import Vocabulary

WORKED_SENTENCE = "We are all humans born to make mistakes"
SAMPLE_TOKENS = 48
LEAST_CONTEXT = 8
PLACEHOLDER = "a sentence of yours"


@dataclass(frozen=True)
class Preview:
    """One place in a hold-out text: what the model expected there and what came."""

    context: str
    expected: str
    expected_probability: float
    came: str
    probability: float


@dataclass(frozen=True)
class Floor:
    """The lowest loss that any model can reach on a text that was drawn from known odds."""

    nats_per_token: float

    def excess(self, loss: float) -> tuple[float, float]:
        """Return how far a loss lies above: in nats a token, and as a share of the floor."""
        return loss - self.nats_per_token, loss / self.nats_per_token - 1


def write_sample(
    model: Transformer, vocabulary: Vocabulary, settings: GenerationSettings, step: int
) -> str:
    """Let the model write a little, at full precision, from a seed of its own."""
    short = replace(settings, max_tokens=SAMPLE_TOKENS, seed=step, samples=1)
    with at_full_precision(model):
        return "".join(chosen.text for chosen in generate(model, vocabulary, "", short))


@torch.inference_mode()
def preview_holdout(model: Transformer, prepared: Prepared, step: int) -> Preview | None:
    """Take the hardest place in the first words of one hold-out text: expected there, and came."""
    holdout, vocabulary = prepared.holdout, prepared.vocabulary
    most = min(SAMPLE_TOKENS, model.shape.context - (not model.shape.causal))
    ids = holdout.document(step % holdout.num_documents)[:most].tolist()
    if not model.shape.causal:
        ids = [id_ for id_ in ids if id_ != vocabulary.end_id]
        if not ids:
            return None
    with at_full_precision(model):
        states = states_of_each(model, vocabulary, ids).states.float()
        logits = states @ model.output_weight.float().T
    probabilities = logits.cpu().double().softmax(-1)
    right = probabilities.gather(1, torch.tensor(ids)[:, None])[:, 0]
    # The first words of a text are anybody's guess; the hardest later one says more.
    place = LEAST_CONTEXT + int(right[LEAST_CONTEXT:].argmin()) if len(ids) > LEAST_CONTEXT else 0
    likeliest = int(probabilities[place, : len(vocabulary)].argmax())
    return Preview(
        vocabulary.decode(ids[:place]),
        vocabulary.piece(likeliest),
        float(probabilities[place, likeliest]),
        vocabulary.piece(ids[place]),
        float(right[place]),
    )


def floor_of(prepared: Prepared, scores: Evaluation) -> Floor | None:
    """Return the lowest loss possible on a hold-out, over the same tokens; None where not known."""
    if scores.at_hidden:
        return None
    holdout, vocabulary = prepared.holdout, prepared.vocabulary
    documents = (holdout.document(number).tolist() for number in range(scores.documents))
    nats = known_floor(prepared.facts["corpus"], map(vocabulary.decode, documents))
    return None if nats is None else Floor(nats / scores.tokens)


FILLED_TOKENS, FILLED_EVERY = 32, 6


@torch.inference_mode()
def fill_in(model: Transformer, prepared: Prepared, step: int) -> str:
    """Hide every sixth piece of a held-out text's beginning and let the model fill them in.

    Args:
        model: looks to both sides.
        prepared: the text.
        step: chooses the text.
    """
    holdout, vocabulary = prepared.holdout, prepared.vocabulary
    ids = holdout.document(step % holdout.num_documents)[:FILLED_TOKENS].tolist()
    ids = [id_ for id_ in ids if id_ != vocabulary.end_id][: model.shape.context - 1]
    places = list(range(FILLED_EVERY - 1, len(ids), FILLED_EVERY))
    row = [vocabulary.mask if place in places else id_ for place, id_ in enumerate(ids)]
    asked = torch.tensor([[vocabulary.end_id, *row]], device=model.device)
    with at_full_precision(model):
        logits = model(asked)[0, 1:, : len(vocabulary)]
    told = []
    for place, id_ in enumerate(ids):
        piece = vocabulary.piece(id_)
        if place in places:
            guess = vocabulary.piece(int(logits[place].argmax()))
            space = " " if piece.startswith(" ") or guess.startswith(" ") else ""
            piece = (
                f"{space}[{guess.strip()}]"
                if guess == piece
                else (f"{space}[{guess.strip()}, not {piece.strip()}]")
            )
        told.append(piece)
    return "".join(told)


BEGINNING_WORDS, BEGINNING_LETTERS, BEGINNING_TOKENS = 5, 40, 48
JOINERS = "\u200c\u200d"
"""Not printed, but some scripts and many emojis are spelled with them."""
BEGINNING_TEXTS = 20
"""Of the hold-out, among which one is sought that begins with words."""


def beginning_of(prepared: Prepared) -> str | None:
    """Return the first words of a held-out text, to ask the model about; None on the stories.

    They stand on one line, without what cannot be typed or would be read as an option.
    """
    if prepared.facts["corpus"] == "stories":
        return None
    holdout, vocabulary = prepared.holdout, prepared.vocabulary
    for number in range(min(BEGINNING_TEXTS, holdout.num_documents)):
        ids = holdout.document(number)[:BEGINNING_TOKENS].tolist()
        if words := first_words(vocabulary.decode(ids)):
            return words
    return PLACEHOLDER


def first_words(text: str) -> str:
    """Return a text's first words; nothing where there are none.

    Of a script without spaces between words, its first letters.
    """
    for line in text.splitlines():
        line = "".join(
            letter if letter.isprintable() or letter in JOINERS else " " for letter in line
        )
        words = line.partition("\ufffd")[0].split()[:BEGINNING_WORDS]
        while words and not any(map(str.isalnum, words[0])):
            del words[0]  # a dash would begin an option
        found = " ".join(words).lstrip("-").strip()
        if len(found) > BEGINNING_LETTERS:
            found = found[:BEGINNING_LETTERS].rpartition(" ")[0] or found[:BEGINNING_LETTERS]
        if found:
            return found
    return ""


@contextmanager
def at_full_precision(model: Transformer) -> Iterator[None]:
    """Compute the model's matrix products in float32 for a while."""
    before = model.precision
    model.set_precision(torch.float32)
    try:
        yield
    finally:
        model.set_precision(before)
