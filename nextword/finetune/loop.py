"""The fine-tuning loop that labels and answers share: start, folder, steps, evaluation, end."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from nextword.base.files import sha256_of, write_json
from nextword.callbacks import EVALUATIONS, fit, log_steps
from nextword.corpus.documents import find_files
from nextword.finetune.tally import Tally
from nextword.machine.about import versions
from nextword.machine.device import Machine
from nextword.model.shape import Shape
from nextword.model.transformer import Transformer
from nextword.objectives.options import FinetuneSettings, finetune_rate
from nextword.prediction.answers import AnswerScores
from nextword.prediction.labels import Scores
from nextword.prediction.loading import FACTS
from nextword.prediction.several import SeveralScores
from nextword.rendering.progress import Progress
from nextword.run import SETTINGS, Resumed, go_back, named_fully
from nextword.settings import Settings, as_toml
from nextword.training.checkpoint import (
    list_checkpoints,
    remove_checkpoints,
    restore_optimizers,
    save_checkpoint,
)
from nextword.training.journal import Journal
from nextword.training.loop import BatchLike, Callback, Plan, TrainerState, Training
from nextword.training.optimizers import build_optimizers, groups_of
from nextword.training.options import TrainingSettings
from nextword.training.plan import MICRO_BATCH_TOKENS
from nextword.vocabulary.tokenizer import Vocabulary


@dataclass(frozen=True)
class FinetuneResult:
    """What came of it."""

    folder: Path
    """Of the run."""
    scores: Scores | SeveralScores | AnswerScores | None
    """On the hold-out; None without one."""
    before: AnswerScores | None = None
    """The same before any step."""
    rows: Mapping[str, Any] = field(default_factory=dict)
    """How many were read, learned from, held out, and left out for which reason."""


class Rows(NamedTuple):
    """What a step reads."""

    number: int
    longest: int
    """Positions of the longest."""
    tokens: float
    """Of one, on average."""


class SplitSizes(NamedTuple):
    """How the examples were divided."""

    learned: int
    held: int


def digests_of(paths: Sequence[str]) -> dict[str, str]:
    """Return the digest of each file of examples, by which a resumed run knows them again."""
    files = (Path(name) for name in find_files(paths))
    return {str(file.absolute()): sha256_of(file) for file in files if file.is_file()}


def steps_of(settings: FinetuneSettings, rows: int, rows_a_step: int) -> int:
    """Return the steps to take: ten readings, 100 to 2,000 steps, where none are named."""
    return settings.steps or min(max(100, 10 * rows // rows_a_step), 2000)


@dataclass(frozen=True)
class FinetuneLoop:
    """A run that learns from examples."""

    folder: Path
    start_folder: Path
    """The model folder that it begins with."""
    from_nothing: bool
    """Whether only sizes and vocabulary are taken from there, for comparison."""
    shape: Shape
    vocabulary: Vocabulary
    machine: Machine
    settings: Settings
    task: str
    paths: Sequence[str]
    progress: Progress
    tally: Tally
    chat_template: str | None = None
    """How other programs write a chat down for this model, where it was taught with chats."""
    resumed: Resumed | None = None
    """This run, where it goes on."""

    @property
    def first_step(self) -> int:
        """Steps done before."""
        return 0 if self.resumed is None else self.resumed.checkpoint.step

    def say_start(self, sides: SplitSizes, steps: int, batch: int) -> None:
        """Say what will be done."""
        for note in self.tally.notes():
            self.progress.say(f"note        {note}")
        begins = "new weights" if self.from_nothing else str(self.start_folder)
        self.progress.say(
            f"examples    {sides.learned:,} to learn from, {sides.held:,} held out, "
            f"{len(self.tally.left):,} left out, of {self.tally.rows:,} rows\n"
            f"network     begins with {begins}; {self.shape.num_hidden_layers} layers, "
            f"{self.shape.hidden_size} wide\n"
            f"training    {steps:,} steps of {batch:,} examples on {self.machine}\n"
            f"run         {self.folder}"
        )

    def run(
        self,
        model: Transformer,
        loss: nn.Module,
        read: Callable[[int, slice], BatchLike],
        steps: int,
        rows: Rows,
        judge: Callable[[], Mapping[str, Any] | None],
        sides: SplitSizes,
        *,
        faster: Mapping[str, nn.Parameter] | None = None,
        times: float = 1.0,
    ) -> None:
        """Train, and save the last step.

        Args:
            model: the network.
            loss: takes what `read` returns.
            read: the batches.
            steps: to take.
            rows: of a step.
            judge: scores the hold-out; its figures hold at least "loss".
            sides: how the examples were divided.
            faster: parameters that learn at a rate of their own.
            times: that of all others.

        Raises:
            DivergedError: the loss is no number any more; the last checkpoint is the one before.
        """
        training = self._how()
        optimizers = _optimizers(model, training, faster or {}, times)
        at_once = MICRO_BATCH_TOKENS.get(self.machine.device.type, 4096) // rows.longest
        plan = Plan(steps, rows.number, max(1, min(rows.number, at_once)), round(rows.tokens))
        self._begin(model, plan, sides, optimizers)
        journal = Journal(self.folder)

        def save(step: int, loss: float | None = None) -> None:
            state = {"step": step, "holdout_loss": loss, "tokens": 0}
            save_checkpoint(
                *(self.folder, model, optimizers, self.vocabulary, state),
                chat_template=self.chat_template,
            )
            remove_checkpoints(list_checkpoints(self.folder), keep=[step])

        def evaluate(state: TrainerState) -> None:
            found = judge()
            journal.write({"event": "evaluation", "step": state.step, **(found or {})})
            # What is used is the last step; on the way one is kept only to go on from.
            save(state.step, found["loss"] if found is not None and state.is_last else None)
            if found is not None and not state.is_last:
                self.progress.say(f"step {state.step:,}: hold-out loss {found['loss']:.4f}")

        every = max(1, -(-steps // EVALUATIONS))
        whole = Training(
            loss,
            model,
            optimizers,
            read,
            plan,
            training,
            self.machine,
            every_token_is_a_target=False,
        )
        fit(
            whole,
            self.first_step,
            [log_steps(self.folder, self.progress, plan), Callback(every, evaluate)],
            folder=self.folder,
            progress=self.progress,
            save=save,
            rate="--finetune.learning-rate",
        )

    def _begin(
        self,
        model: Transformer,
        plan: Plan,
        sides: SplitSizes,
        optimizers: Sequence[torch.optim.Optimizer],
    ) -> None:
        """Make the run's folder, or go back to where it goes on from."""
        if self.resumed is None:
            self.folder.mkdir(parents=True)
            (self.folder / SETTINGS).write_text(as_toml(self.settings), encoding="utf-8")
            write_json(self.folder / FACTS, self._facts(model, plan, sides))
            return
        restore_optimizers(self.resumed.checkpoint.folder, model, optimizers)
        go_back(self.resumed, self.machine, self.progress)

    def _how(self) -> TrainingSettings:
        asked = self.settings.finetune
        return TrainingSettings(
            optimizer="adamw",
            learning_rate=asked.learning_rate or finetune_rate(self.shape.hidden_size),
            weight_decay=asked.weight_decay,
            decay_power=1.0,
            seed=asked.seed,
        )

    def _facts(self, model: Transformer, plan: Plan, sides: SplitSizes) -> dict[str, Any]:
        return {
            "paths": named_fully(self.paths),
            "objective": self.settings.objective.name,
            "task": self.task,
            "rows": self.tally.as_dict(*sides),
            "warm_start": None if self.from_nothing else str(self.start_folder.absolute()),
            "digests": digests_of(self.paths),
            "shape": asdict(model.shape),
            "parameters": sum(weight.numel() for weight in model.parameters()),
            "plan": asdict(plan),
            "versions": versions(),
            "hardware": self.machine.describe(),
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }


def _optimizers(
    model: Transformer,
    training: TrainingSettings,
    faster: Mapping[str, nn.Parameter],
    times: float,
) -> list[torch.optim.Optimizer]:
    """Build the optimizer, in which some parameters learn at a rate of their own."""
    known = {id(weight) for weight in faster.values()}
    groups = {
        kind: {name: weight for name, weight in weights.items() if id(weight) not in known}
        for kind, weights in groups_of(model).items()
    }
    optimizers = build_optimizers({**groups, "head": dict(faster)}, training)
    for group in optimizers[0].param_groups:
        if any(id(weight) in known for weight in group["params"]):
            group["peak"] *= times
    return optimizers
