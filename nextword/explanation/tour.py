"""The data of the guided tour through a run, all of it measured on that run."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from nextword.base.errors import NextwordError
from nextword.explanation.audit import Audit, audit_worked
from nextword.explanation.labels import LabelLesson, learn_labels
from nextword.explanation.previews import WORKED_SENTENCE
from nextword.explanation.replay import Replay, read_replay
from nextword.explanation.trace import Guess, Trace, trace
from nextword.prediction.candidates import Prediction, predict
from nextword.prediction.evaluate import Evaluation
from nextword.prediction.generate import generate
from nextword.prediction.loading import Opened
from nextword.prediction.options import GenerationSettings
from nextword.vocabulary.tokenizer import Vocabulary

WORKED_PROMPT = "We are all humans born to"
UNSEEN_WORDS = ("cryptography", "zeppelin", "quixotic", "yttrium")
WRITTEN_PIECES = 12


@dataclass(frozen=True)
class Unseen:
    """A word that is no piece of the vocabulary."""

    word: str
    pieces: tuple[str, ...]
    """What it is cut into."""
    unknown: bool
    """Whether it cannot be written with these pieces at all."""
    probability: float
    """That the model would write it after the worked example's prompt: the product of its parts."""


@dataclass(frozen=True)
class WrittenPiece:
    """One piece as the model chose it."""

    text: str
    id: int
    probability: float
    likeliest: Guess


@dataclass(frozen=True)
class TourFacts:
    """Everything the stops show."""

    run: str
    entries: int
    kind: str
    train_tokens: int | None
    trace: Trace
    """Of the worked example."""
    audit: Audit
    """Of one of its predictions."""
    prediction: Prediction
    """After the worked example's prompt."""
    unseen: Unseen
    replay: Replay | None
    scores: Evaluation | None
    """On a part of the hold-out, with the loss by context length."""
    written: tuple[WrittenPiece, ...]
    labels: LabelLesson
    """A few sentences that a person labelled, learned on the spot."""


def gather_tour(
    opened: Opened, run: str, train_tokens: int | None, score: Callable[[], Evaluation] | None
) -> TourFacts:
    """Ask the model all that the stops show.

    Args:
        opened: the model.
        run: how it is called on the command line.
        train_tokens: it learned from, where known.
        score: evaluates it on held-out text; None where it has none.
    """
    model, vocabulary = opened.model, opened.vocabulary
    judged = trace(model, vocabulary, WORKED_SENTENCE, top=3, name=run)
    replay = None
    if opened.run is not None:
        try:
            replay = read_replay(opened.run)
        except NextwordError:
            replay = None  # a run from before sentences were judged
    return TourFacts(
        run=run,
        entries=len(vocabulary),
        kind=vocabulary.kind,
        train_tokens=train_tokens,
        trace=judged,
        audit=audit_worked(model, vocabulary, run),
        prediction=predict(model, vocabulary, WORKED_PROMPT, 5),
        unseen=_unseen(opened),
        replay=replay,
        scores=None if score is None else score(),
        written=_written(opened),
        labels=learn_labels(model, vocabulary),
    )


def _unseen(opened: Opened) -> Unseen:
    """Find a word that is not one piece, and how likely the model is to write it."""
    vocabulary = opened.vocabulary
    word = next((word for word in UNSEEN_WORDS if not _is_piece(vocabulary, word)), UNSEEN_WORDS[0])
    ids = vocabulary.encode(f" {word}")
    judged = trace(opened.model, vocabulary, f"{WORKED_PROMPT} {word}")
    product = 1.0
    for position in judged.positions[-len(ids) :]:
        product *= position.probability
    return Unseen(
        word,
        tuple(vocabulary.piece(id_) for id_ in ids),
        vocabulary.unknown_id in ids,
        product,
    )


def _is_piece(vocabulary: Vocabulary, word: str) -> bool:
    ids = vocabulary.encode(f" {word}")
    return len(ids) == 1 and ids[0] != vocabulary.unknown_id


@torch.inference_mode()
def _written(opened: Opened) -> tuple[WrittenPiece, ...]:
    settings = GenerationSettings(seed=1, max_tokens=WRITTEN_PIECES)
    pieces = []
    for chosen in generate(opened.model, opened.vocabulary, "", settings):
        probabilities = chosen.logits.cpu().double().softmax(0)
        best = int(probabilities.argmax())
        likeliest = Guess(opened.vocabulary.piece(best), best, float(probabilities[best]))
        pieces.append(
            WrittenPiece(chosen.text, chosen.id, float(probabilities[chosen.id]), likeliest)
        )
    return tuple(pieces)
