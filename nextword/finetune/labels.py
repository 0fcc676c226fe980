"""Fine-tune a sequence-classification head: classes, numbers or several labels of a text.

rows → texts and labels → two sides → tokens → the body of a trained model, a new head → steps
→ a ForSequenceClassification folder, judged beside who always says the commonest
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from nextword.base.errors import SettingsError
from nextword.explanation.previews import at_full_precision
from nextword.finetune.examples import Label, Labelled, LabelledSet
from nextword.finetune.loop import FinetuneLoop, FinetuneResult, Rows, SplitSizes, steps_of
from nextword.model.folder import read_body, read_model
from nextword.model.initialize import initialize
from nextword.model.labels import SequenceClassifier
from nextword.model.layouts import LabelHead
from nextword.objectives.labelled import Examples, in_order, label
from nextword.objectives.options import FinetuneSettings
from nextword.prediction.labels import (
    Scores,
    all_classes,
    logits_of,
    rows_of,
    score_classes,
    score_numbers,
)
from nextword.prediction.several import (
    SeveralScores,
    all_several,
    best_without_reading,
    score_several,
)
from nextword.training.step import LabelLoss
from nextword.vocabulary.tokenizer import Vocabulary

LOOKED_AT = 512
"""Examples from which the first head of a number is found."""
RIDGE = 1e-3
MOST_LOGITS = 1 << 24
"""Of the hold-out at once, which ten thousand classes would fill the memory with."""


def teach_labels(loop: FinetuneLoop, known: LabelledSet) -> FinetuneResult:
    """Train a network on texts and labels.

    Args:
        loop: what it begins with, where it computes, and where it is written.
        known: the examples.

    Returns:
        what came of it.
    """
    settings, vocabulary = loop.settings.finetune, loop.vocabulary
    if known.several and settings.class_weights != "none":
        raise SettingsError(
            "--finetune.class-weights balanced counts each class alike where a text has one; these "
            "have several labels"
        )
    model = _first_model(loop, known)
    model.to(loop.machine.device)
    model.set_precision(loop.machine.precision)

    train, holdout = _in_tokens(loop, known.train), _in_tokens(loop, known.holdout)
    labels = [example.label for example in known.train]
    spread = 1.0
    if known.is_number:
        numbers = as_array(labels, known)
        spread = float(numbers.std()) or 1.0
        if loop.resumed is None:
            _begin_at_the_mean(model, vocabulary, train, float(numbers.mean()))
    weights = _weights(labels, known, settings)
    fill_id = vocabulary.end_id if vocabulary.pad_id is None else vocabulary.pad_id
    rows_a_step = min(settings.batch_examples, len(train))

    def read(step: int, rows: slice) -> Examples:
        chosen = in_order(len(train), rows_a_step, step, settings.seed)[rows].tolist()
        given = as_array([labels[one] for one in chosen], known)
        return label([train[one] for one in chosen], given, weights[chosen], fill_id)

    steps = steps_of(settings, len(train), rows_a_step)
    last = dict(model.last.named_parameters(prefix="last"))
    scores: list[Scores | SeveralScores] = []

    def judge() -> Mapping[str, Any] | None:
        if not holdout:
            return None
        with at_full_precision(model):
            scores.append(_score(model, vocabulary, holdout, known))
        return scores[-1].as_dict()

    sides = SplitSizes(len(train), len(holdout))
    loop.say_start(sides, steps, rows_a_step)
    loss = LabelLoss(model, spread=spread)
    sizes = [len(row) for row in train]
    rows_ = Rows(rows_a_step, max(sizes), sum(sizes) / len(sizes))
    loop.run(model, loss, read, steps, rows_, judge, sides, faster=last, times=spread)
    return FinetuneResult(
        loop.folder, scores[-1] if scores else None, rows=loop.tally.as_dict(*sides)
    )


def _first_model(loop: FinetuneLoop, known: LabelledSet) -> SequenceClassifier:
    """Build the network: a trained body with a new head, or the run's own to go on with."""
    if loop.resumed is not None:
        saved = read_model(loop.resumed.checkpoint.folder)
        assert isinstance(saved, SequenceClassifier)  # written by this function's other half
        return saved
    head = LabelHead(known.names, known.is_number, several=known.several)
    model = SequenceClassifier(loop.shape, head)
    initialize(model, loop.settings.finetune.seed)
    if not loop.from_nothing:
        read_body(model, loop.start_folder)
    return model


def _in_tokens(loop: FinetuneLoop, side: Sequence[Labelled]) -> list[list[int]]:
    texts, shape = [example.text for example in side], loop.shape
    found = rows_of(loop.vocabulary, texts, shape.context, causal=shape.causal)
    loop.tally.shortened += found.cut
    loop.tally.cut = "end"
    return found.rows


def as_array(labels: Sequence[Label], known: LabelledSet) -> np.ndarray:
    """Lay labels out as the loss takes them: quantities, classes, or (B, C) of 0 and 1."""
    if not known.several:
        return np.array(labels, np.float32 if known.is_number else np.int64)
    given = np.zeros((len(labels), len(known.names)), dtype=np.float32)
    for row, one in zip(given, labels, strict=True):
        row[list(one)] = 1  # type: ignore[arg-type]
    return given


def _score(
    model: SequenceClassifier,
    vocabulary: Vocabulary,
    holdout: Sequence[Sequence[int]],
    known: LabelledSet,
) -> Scores | SeveralScores:
    """Score the hold-out, so many texts at once that their logits stay small."""
    train, names = [example.label for example in known.train], known.names
    true = [example.label for example in known.holdout]
    if known.is_number:
        logits = logits_of(model, vocabulary, holdout)
        mean = float(as_array(train, known).mean())
        return score_numbers(logits, as_array(true, known), mean)
    at_once = max(1, MOST_LOGITS // len(names))
    parts = [slice(start, start + at_once) for start in range(0, len(holdout), at_once)]
    logits_of_parts = (logits_of(model, vocabulary, holdout[part]) for part in parts)
    if known.several:
        always = best_without_reading(train, len(names))  # type: ignore[arg-type]
        return all_several(
            [
                score_several(logits, true[part], names, always)  # type: ignore[arg-type]
                for part, logits in zip(parts, logits_of_parts, strict=True)
            ]
        )
    majority = int(Counter(train).most_common(1)[0][0])  # type: ignore[arg-type]
    return all_classes(
        [
            score_classes(logits, as_array(true[part], known), names, majority)
            for part, logits in zip(parts, logits_of_parts, strict=True)
        ]
    )


def _weights(labels: Sequence[Label], known: LabelledSet, settings: FinetuneSettings) -> np.ndarray:
    """Return how much each example counts: 1, or so that each class counts alike."""
    if known.kind.name != "class" or settings.class_weights == "none":
        return np.ones(len(labels), dtype=np.float32)
    of_each = as_array(labels, known)
    counts = np.bincount(of_each, minlength=len(known.names))
    weights: np.ndarray = (len(labels) / ((counts > 0).sum() * counts[of_each])).astype(np.float32)
    return weights


@torch.no_grad()
def _begin_at_the_mean(
    model: SequenceClassifier, vocabulary: Vocabulary, rows: Sequence[Sequence[int]], mean: float
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
