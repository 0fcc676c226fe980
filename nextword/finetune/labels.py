"""Texts with labels → a network with a head of its own, in one straight script.

rows → texts and labels → two sides → tokens → the body of a trained model, a new head → steps
→ a ForSequenceClassification folder, judged beside who always says the commonest
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from nextword.explanation.look import at_full_precision
from nextword.finetune.course import Course, Rows, Taught, steps_of
from nextword.finetune.examples import Labelled, LabelledSet
from nextword.model.folder import read_body
from nextword.model.initialize import initialize
from nextword.model.labels import Labeller
from nextword.model.layouts import LabelHead
from nextword.objectives.labelled import Examples, in_order, label
from nextword.objectives.options import FinetuneSettings
from nextword.prediction.labels import Scores, logits_of, rows_of, score_classes, score_numbers
from nextword.training.step import LabelLoss
from nextword.vocabulary.tokenizer import Vocabulary

LOOKED_AT = 512
"""Examples from which the first head of a number is found."""
RIDGE = 1e-3


def teach_labels(course: Course, known: LabelledSet) -> Taught:
    """Train a network on texts and labels.

    Args:
        course: what it begins with, where it computes, and where it is written.
        known: the examples.

    Returns:
        what came of it.
    """
    settings, vocabulary, shape = course.settings.finetune, course.vocabulary, course.shape
    head = LabelHead(known.names, known.is_number)
    model = Labeller(shape, head)
    initialize(model, settings.seed)
    if not course.from_nothing:
        read_body(model, course.origin)
    model.to(course.machine.device)
    model.set_precision(course.machine.precision)

    def tokens(side: Sequence[Labelled]) -> list[list[int]]:
        texts = [example.text for example in side]
        return rows_of(vocabulary, texts, shape.context, causal=shape.causal)

    train, holdout = tokens(known.train), tokens(known.holdout)
    labels = np.array(
        [example.label for example in known.train], np.float32 if known.is_number else np.int64
    )
    spread = 1.0
    if known.is_number:
        spread = float(labels.std()) or 1.0
        _begin_at_the_mean(model, vocabulary, train, float(labels.mean()))
    if cut := sum(len(row) == shape.context for row in [*train, *holdout]):
        course.screen.say(
            f"note        {cut:,} texts fill the {shape.context:,} tokens that the model reads at "
            "once; what is longer was cut at its end"
        )
    weights = _weights(labels, known, settings)
    fill_id = vocabulary.end_id if vocabulary.pad_id is None else vocabulary.pad_id
    rows_a_step = min(settings.batch_examples, len(train))

    def read(step: int, rows: slice) -> Examples:
        chosen = in_order(len(train), rows_a_step, step, settings.seed)[rows].tolist()
        return label([train[one] for one in chosen], labels[chosen], weights[chosen], fill_id)

    steps = steps_of(settings, len(train), rows_a_step)
    last = dict(model.last.named_parameters(prefix="last"))
    scores: list[Scores] = []

    def judge() -> Mapping[str, Any] | None:
        if not holdout:
            return None
        with at_full_precision(model):
            logits = logits_of(model, vocabulary, holdout)
        scores.append(_score(logits, known, labels))
        return scores[-1].as_dict()

    course.say_start(len(train), len(holdout), steps, rows_a_step)
    loss = LabelLoss(model, spread=spread)
    sizes = [len(row) for row in train]
    rows_ = Rows(rows_a_step, max(sizes), sum(sizes) / len(sizes))
    course.run(model, loss, read, steps, rows_, judge, faster=last, times=spread)
    return Taught(course.folder, scores[-1] if scores else None)


def _score(logits: torch.Tensor, known: LabelledSet, labels: np.ndarray) -> Scores:
    true = [example.label for example in known.holdout]
    if known.is_number:
        return score_numbers(logits, np.array(true, dtype=np.float32), float(labels.mean()))
    majority = Counter(labels.tolist()).most_common(1)[0][0]
    return score_classes(logits, np.array(true, dtype=np.int64), known.names, majority)


def _weights(labels: np.ndarray, known: LabelledSet, settings: FinetuneSettings) -> np.ndarray:
    """Return how much each example counts: 1, or so that each class counts alike."""
    if known.is_number or settings.class_weights == "none":
        return np.ones(len(labels), dtype=np.float32)
    counts = np.bincount(labels, minlength=len(known.names))
    weights: np.ndarray = (len(labels) / ((counts > 0).sum() * counts[labels])).astype(np.float32)
    return weights


@torch.no_grad()
def _begin_at_the_mean(
    model: Labeller, vocabulary: Vocabulary, rows: Sequence[Sequence[int]], mean: float
) -> None:
    """Let the head say the mean of the numbers at first, that only differences are to be learned.

    One without a bias finds by least squares what of the state is always there.
    """
    if not model.shape.causal:
        model.classifier.bias.fill_(mean)
        return
    states = []
    for row in rows[:LOOKED_AT]:
        ids = torch.tensor([row], device=model.device)
        states.append(model.features(ids, torch.tensor([len(row)], device=model.device))[0])
    seen = torch.stack(states).cpu().double()
    square = seen.T @ seen + RIDGE * len(seen) * torch.eye(seen.shape[1], dtype=torch.float64)
    always = torch.linalg.solve(square, seen.sum(dim=0))
    model.score.weight.copy_(mean * always[None])
