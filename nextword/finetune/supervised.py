"""What fine-tuning on labels and on answers share: where it begins, its plan, rates and receipt."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from nextword.base.files import sha256_of
from nextword.callbacks import Judged
from nextword.corpus.documents import find_files
from nextword.explanation.previews import at_full_precision
from nextword.finetune.tally import Tally
from nextword.fit import Task
from nextword.machine.device import Machine
from nextword.model.shape import Shape
from nextword.model.transformer import Transformer
from nextword.objectives.options import FinetuneSettings, finetune_rate
from nextword.prediction.answers import AnswerScores
from nextword.prediction.labels import Scores
from nextword.prediction.preferences import PreferenceScores
from nextword.prediction.several import SeveralScores
from nextword.run import Resumed, Run
from nextword.settings import Settings
from nextword.training.loop import Plan, TrainerState
from nextword.training.lora import adapt, bytes_of
from nextword.training.optimizers import build_optimizers, groups_of
from nextword.training.options import TrainingSettings
from nextword.training.plan import MICRO_BATCH_TOKENS
from nextword.vocabulary.tokenizer import Vocabulary

AnyScores = Scores | SeveralScores | AnswerScores | PreferenceScores


class Start(NamedTuple):
    """What a fine-tuning begins with."""

    name: str
    """As the user named it."""
    folder: Path
    """The model folder."""
    paths: tuple[str, ...]
    """Of the examples."""
    from_nothing: bool
    """Whether only sizes and vocabulary are taken from there, for comparison."""
    resumed: Resumed | None = None

    @property
    def known_from(self) -> Path:
        """The folder that says sizes and vocabulary."""
        if self.resumed is None or self.resumed.checkpoint is None:
            return self.folder
        return self.resumed.checkpoint.folder


@dataclass(frozen=True)
class Rows:
    """What a step reads."""

    number: int
    longest: int
    """Positions of the longest."""
    tokens: float
    """Of one, on average."""
    count: int
    """Of all there are."""

    def plan(self, settings: FinetuneSettings, machine: Machine) -> Plan:
        """Return the steps to take: ten readings, 100 to 2,000 steps, where none are named."""
        steps = settings.steps or min(max(100, 10 * self.count // self.number), 2000)
        at_once = MICRO_BATCH_TOKENS.get(machine.device.type, 4096) // self.longest
        return Plan(steps, self.number, max(1, min(self.number, at_once)), round(self.tokens))


class Supervised(Task):
    """Learn from examples that a person prepared."""

    rate = "--finetune.learning-rate"
    rows: Rows
    learned: int
    """Examples to learn from."""
    held: int
    """Examples held out."""
    scores: AnyScores | None = None
    """On the hold-out, when last judged."""
    before: AnswerScores | None = None
    """The same before any step, of answers."""

    def __init__(self, start: Start, vocabulary: Vocabulary, name: str, tally: Tally) -> None:
        """Remember where it begins.

        Args:
            start: the model.
            vocabulary: of the model.
            name: of the task.
            tally: counts rows that are left out.
        """
        self.start, self.vocabulary, self.name, self.tally = start, vocabulary, name, tally

    @property
    def fill_id(self) -> int:
        """What stands after the end of the shorter of two rows."""
        pad_id = self.vocabulary.pad_id
        return self.vocabulary.end_id if pad_id is None else pad_id

    def optimizers(self, run: Run, model: Transformer) -> list[torch.optim.Optimizer]:
        """Build what moves the weights: a head of its own, and the body, or thin matrices there."""
        body, head = self.groups(model)
        asked = run.settings.finetune
        if not asked.lora_rank:
            return build_optimizers({**body, "head": head}, run.training)
        alpha = asked.lora_alpha or 2.0 * asked.lora_rank
        thin = adapt(body, run.training, asked.lora_rank, alpha)
        return [thin, *build_optimizers({"head": head}, run.training)]

    def groups(
        self, model: Transformer
    ) -> tuple[dict[str, dict[str, nn.Parameter]], dict[str, nn.Parameter]]:
        """Return the body's weights as `groups_of` does, and those of a head that is new."""
        return groups_of(model), {}

    def bytes_beside(self, run: Run, model: Transformer) -> int:
        """Bound what a step needs beside the weights."""
        rank = run.settings.finetune.lora_rank
        return bytes_of(groups_of(model), rank) if rank else super().bytes_beside(run, model)

    def bytes_saved(self, run: Run, model: Transformer) -> int:
        """Bound the copy that is kept to be saved; with LoRA the weights are most of it."""
        weights = 4 * sum(weight.numel() for weight in model.parameters())
        thin = weights if run.settings.finetune.lora_rank else 0
        return thin + self.bytes_beside(run, model)

    @abstractmethod
    def score(self, model: Transformer) -> AnyScores | None:
        """Score the hold-out; None without one."""

    def judge(self, run: Run, model: Transformer, state: TrainerState) -> Judged | None:
        """Score the hold-out."""
        with at_full_precision(model):
            self.scores = self.score(model)
        if self.scores is None:
            return None
        figures = self.scores.as_dict()
        words = f"step {state.step:,}: hold-out loss {figures['loss']:.4f}"
        return Judged(figures["loss"], figures, "" if state.is_last else words)

    def facts(self) -> Mapping[str, Any]:
        """Return which examples these are."""
        return {"task": self.name, "rows": self.counts(), "digests": digests_of(self.start.paths)}

    def counts(self) -> dict[str, Any]:
        """Return how many rows were read, learned from, held out, and left out for which reason."""
        return self.tally.as_dict(self.learned, self.held)

    def describe(self, run: Run) -> str:
        """Say what will be done."""
        start = self.start
        begins = "new weights" if start.from_nothing else str(start.folder)
        batch = min(run.settings.finetune.batch_examples, self.learned)
        return "\n".join(
            (
                *(f"note        {note}" for note in self.tally.notes()),
                f"examples    {self.learned:,} to learn from, {self.held:,} held out, "
                f"{len(self.tally.left):,} left out, of {self.tally.rows:,} rows",
                f"network     begins with {begins}; {run.shape.num_hidden_layers} layers, "
                f"{run.shape.hidden_size} wide",
                f"training    {run.plan.steps:,} steps of {batch:,} examples on {run.machine}",
                f"run         {run.folder}",
            )
        )


def digests_of(paths: Sequence[str]) -> dict[str, str]:
    """Return the digest of each file of examples, by which a resumed run knows them again."""
    files = (Path(name) for name in find_files(paths))
    return {str(file.absolute()): sha256_of(file) for file in files if file.is_file()}


def rates(settings: Settings, shape: Shape) -> TrainingSettings:
    """Return how a fine-tuning trains: AdamW, at a rate that follows from the width."""
    asked = settings.finetune
    return TrainingSettings(
        optimizer="adamw",
        learning_rate=asked.learning_rate
        or finetune_rate(shape.hidden_size, lora=asked.lora_rank > 0),
        weight_decay=asked.weight_decay,
        decay_power=1.0,
        seed=asked.seed,
    )
