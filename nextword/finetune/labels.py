"""Fine-tune a sequence-classification head: classes, numbers or several labels of a text.

rows → texts and labels → two sides → tokens → the body of a trained model, a new head → steps
→ a ForSequenceClassification folder, judged beside who always says the commonest
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from nextword.base.errors import SettingsError
from nextword.finetune.examples import Label, Labelled, LabelledSet
from nextword.finetune.kinds import TASKS
from nextword.finetune.supervised import Rows, Start, Supervised
from nextword.finetune.tally import Tally
from nextword.model.folder import read_body, read_model
from nextword.model.initialize import initialize
from nextword.model.labels import SequenceClassifier
from nextword.model.layouts import LabelHead
from nextword.model.shape import Shape
from nextword.model.transformer import Transformer
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
from nextword.run import Run
from nextword.training.optimizers import groups_of
from nextword.training.step import LabelLoss
from nextword.vocabulary.tokenizer import Vocabulary

LOOKED_AT = 512
"""Examples from which the first head of a number is found."""
RIDGE = 1e-3
MOST_LOGITS = 1 << 24
"""Of the hold-out at once, which ten thousand classes would fill the memory with."""


class Labels(Supervised):
    """Learn labels of texts: a trained body with a new head."""

    spread = 1.0

    def __init__(
        self,
        start: Start,
        vocabulary: Vocabulary,
        tally: Tally,
        known: LabelledSet,
        settings: FinetuneSettings,
        shape: Shape,
    ) -> None:
        """Encode the texts.

        Args:
            start: the model to begin with.
            vocabulary: of the model.
            tally: of the rows read.
            known: the examples.
            settings: how.
            shape: of the model.

        Raises:
            SettingsError: classes cannot be weighed where a text has several.
        """
        super().__init__(start, vocabulary, TASKS[known.kind.name], tally)
        if known.several and settings.class_weights != "none":
            raise SettingsError(
                "--finetune.class-weights balanced counts each class alike where a text has one; "
                "these have several labels"
            )
        self.known, self.seed = known, settings.seed
        self.train = self._in_tokens(known.train, shape)
        self.holdout = self._in_tokens(known.holdout, shape)
        self.learned, self.held = len(self.train), len(self.holdout)
        self.labels = [example.label for example in known.train]
        self.weights = _weights(self.labels, known, settings)
        if known.is_number:
            self.spread = float(as_array(self.labels, known).std()) or 1.0
        sizes = [len(row) for row in self.train]
        a_step, count = min(settings.batch_examples, self.learned), self.learned
        self.rows = Rows(a_step, max(sizes), sum(sizes) / count, count)

    def _in_tokens(self, side: Sequence[Labelled], shape: Shape) -> list[list[int]]:
        texts = [example.text for example in side]
        found = rows_of(self.vocabulary, texts, shape.context, causal=shape.causal)
        self.tally.shortened += found.cut
        self.tally.cut = "end"
        return found.rows

    def model(self, run: Run) -> SequenceClassifier:
        """Return a trained body with a new head, or the run's own network to go on with."""
        if run.saved is not None:
            saved = read_model(run.saved.folder)
            assert isinstance(saved, SequenceClassifier)  # written by this task
            model = saved
        else:
            head = LabelHead(self.known.names, self.known.is_number, several=self.known.several)
            model = SequenceClassifier(run.shape, head)
            initialize(model, self.seed)
            if not self.start.from_nothing:
                read_body(model, self.start.folder)
        model.to(run.machine.device)
        model.set_precision(run.machine.precision)
        if self.known.is_number and run.saved is None:
            mean = float(as_array(self.labels, self.known).mean())
            _begin_at_the_mean(model, self.vocabulary, self.train, mean)
        return model

    def loss(self, run: Run, model: Transformer) -> nn.Module:
        """Return the loss that the labels ask for."""
        assert isinstance(model, SequenceClassifier)
        return LabelLoss(model, spread=self.spread)

    def groups(
        self, model: Transformer
    ) -> tuple[dict[str, dict[str, nn.Parameter]], dict[str, nn.Parameter]]:
        """Return the body's weights, and the head's apart."""
        assert isinstance(model, SequenceClassifier)
        head = dict(model.last.named_parameters(prefix="last"))
        apart = {id(weight) for weight in head.values()}
        body = {
            kind: {name: weight for name, weight in weights.items() if id(weight) not in apart}
            for kind, weights in groups_of(model).items()
        }
        return body, head

    def optimizers(self, run: Run, model: Transformer) -> list[torch.optim.Optimizer]:
        """Build AdamW, with a rate of its own for the head: where numbers are large, so is it."""
        optimizers = super().optimizers(run, model)
        apart = {id(weight) for weight in self.groups(model)[1].values()}
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            if any(id(weight) in apart for weight in group["params"]):
                group["peak"] *= self.spread
        return optimizers

    def read(self, step: int, rows: slice) -> Examples:
        """Return some texts with their labels."""
        chosen = in_order(self.learned, self.rows.number, step, self.seed)[rows]
        one_by_one = chosen.tolist()
        given = as_array([self.labels[one] for one in one_by_one], self.known)
        texts = [self.train[one] for one in one_by_one]
        return label(texts, given, self.weights[chosen], self.fill_id)

    def score(self, model: Transformer) -> Scores | SeveralScores | None:
        """Score the hold-out."""
        assert isinstance(model, SequenceClassifier)
        return _score(model, self.vocabulary, self.holdout, self.known) if self.holdout else None


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
