"""A run: its folder and facts, saving of checkpoints, interruption by Ctrl-C."""

import dataclasses
import os
import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from nextword.base.errors import RunError, SettingsError
from nextword.base.files import LONGEST_NAME, publish, write_json, write_text
from nextword.corpus.hub import hub_sources
from nextword.machine.about import versions
from nextword.machine.device import Machine
from nextword.machine.parts import whole_size
from nextword.machine.ranks import Meeting, Ranks
from nextword.model.folder import read_shape
from nextword.model.shape import Shape
from nextword.model.transformer import Transformer
from nextword.prediction.loading import (
    FACTS,
    find_checkpoint,
    find_run,
    refuse_other_facts,
    run_facts,
    runs_folder,
)
from nextword.rendering.formatting import argument
from nextword.rendering.progress import Progress
from nextword.settings import Settings, as_toml, read_recipe, resolve
from nextword.training.changes import changes_since
from nextword.training.checkpoint import (
    Checkpoint,
    TrainingSnapshot,
    best_of,
    list_checkpoints,
    mend_checkpoints,
    remove_checkpoints,
    save_checkpoint,
    save_rows,
    unreadable_checkpoints,
)
from nextword.training.journal import Journal
from nextword.training.loop import Plan
from nextword.training.options import TrainingSettings
from nextword.training.remembered import follow_journal, note_processes
from nextword.training.saver import Saver
from nextword.training.schedule import Pace, read_pace, read_rates
from nextword.vocabulary.tokenizer import Vocabulary

LONGEST_STEM = 100
"""Bytes of a text's name that name a run."""
SETTINGS, RECIPE = "settings.toml", "recipe.toml"


class Interrupted(Exception):  # noqa: N818 - not an error: the user asked for it
    """A signal asked training to stop; it did at a step's end, and what it had was saved."""

    status: int = 130
    """With which the command ends: 128 and the signal's number."""

    def __init__(self, run: Path, step: int, number: int | None = None) -> None:
        """Say where it stopped.

        Args:
            run: its folder.
            step: the last that was done.
            number: of the signal.
        """
        super().__init__(
            f"stopped at step {step:,}; go on with: nextword train --resume {argument(run.name)}"
        )
        self.run = run
        self.step = step
        if number is not None:
            self.status = 128 + number


@dataclass(frozen=True)
class Clock:
    """When a run must have ended."""

    ends: float
    """By `time.monotonic`, everything done."""
    reserve: float
    """Seconds for what follows the last step: the whole hold-out, and what it is compared with."""

    @classmethod
    def of(cls, minutes: float, began: float) -> "Clock":
        """Set it: so many minutes after a moment of `time.monotonic`."""
        return cls(began + 60 * minutes, 0.0)

    @property
    def left(self) -> float:
        """Seconds left for steps."""
        return self.ends - self.reserve - time.monotonic()


@dataclass
class Run:
    """A run in the making, whether it learns from text or from examples."""

    folder: Path
    settings: Settings
    vocabulary: Vocabulary
    shape: Shape
    plan: Plan
    training: TrainingSettings
    """Optimizer, rates, and when to evaluate."""
    machine: Machine
    progress: Progress
    paths: Sequence[str] = ()
    """Of text or examples."""
    ranks: Ranks = field(default_factory=Ranks)
    warm_start: Path | None = None
    """The model folder whose weights it began with; None for first weights of its own."""
    resumed: "Resumed | None" = None
    """This run, where it goes on."""
    chat_template: str | None = None
    """How other programs write a chat down for this model, where it was taught with chats."""
    keep_best: bool = True
    """Whether the best checkpoint stays beside the last."""
    seconds: float = 0.0
    """That training took."""
    clock: Clock | None = None
    """What says when to end, where that is said in minutes."""
    teachers: "Sequence[Run]" = ()
    """Runs that are trained first, each taught by those before it, and this one by all of them."""
    saver: Saver[TrainingSnapshot] = field(default_factory=Saver)
    """What writes its checkpoints."""
    pace: Pace = field(init=False)
    """How many steps there are; of a run that follows the clock that changes on the way."""

    def __post_init__(self) -> None:
        """Begin at the plan's pace, or the recipe's."""
        self.pace = read_pace(self.training.pace or "", self.plan.steps)
        read_rates(self.pace, self.training.rates or "")

    @property
    def first_step(self) -> int:
        """Steps done before."""
        return 0 if self.saved is None else self.saved.step

    @property
    def saved(self) -> Checkpoint | None:
        """The checkpoint that it goes on from; None where it begins with its first step."""
        return None if self.resumed is None else self.resumed.checkpoint


_FORBIDDEN = re.compile(r'[<>"|?*\x00-\x1f]|[. ]$')
_DEVICES = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"} | {
    f"{port}{number}" for port in ("COM", "LPT") for number in "123456789¹²³"
}
"""Runs are carried to other machines: what Windows keeps for itself is no name anywhere."""


def new_folder(name: str | None, paths: Sequence[str], builtin: str) -> Path:
    """Return a folder for a new run, named by its text if no name is given; never one that is.

    Raises:
        SettingsError: the name cannot be a folder's.
        RunError: the name is taken.
    """
    if name is not None:
        if not name or any(letter in name for letter in "/\\@:") or name in (".", "..", "latest"):
            raise SettingsError(
                f"--name {name!r}: a run's name must not be empty, 'latest', or hold / \\ @ or :"
            )
        if _FORBIDDEN.search(name) or name.partition(".")[0].rstrip().upper() in _DEVICES:
            raise SettingsError(
                f"--name {name!r}: Windows could not hold a folder of this name; choose another"
            )
        if len(name.encode()) > LONGEST_NAME - len("..0123456789"):
            raise SettingsError(f"--name {name[:40]}…: no folder's name is so long; choose another")
        if (runs_folder() / name).exists():
            raise RunError(
                f"{runs_folder() / name} exists already; choose another --name, or go on with "
                f"--resume {name}"
            )
        return runs_folder() / name
    first = paths[0] if paths else builtin
    if match := re.fullmatch(r"(.+)=[\d.]+", first):
        first = match[1]
    stem = Path(first.rstrip("/")).name.split(".")[0].split("?")[0]
    stem = "".join(letter if letter.isalnum() else "-" for letter in stem).strip("-") or "run"
    stem = stem.encode()[:LONGEST_STEM].decode(errors="ignore")
    number = 1
    while (runs_folder() / f"{stem}-{number}").exists():
        number += 1
    return runs_folder() / f"{stem}-{number}"


def save(
    run: Run,
    model: Transformer,
    optimizers: Sequence[torch.optim.Optimizer],
    step: int,
    holdout: float | None,
    *,
    is_unfinished: bool = False,
) -> None:
    """Save a checkpoint while training goes on; keep the last, those asked for, and the best.

    The first process calls it; where weights are divided among them, all do.

    Raises:
        RunError: the one before it could not be written; those before that are intact.
    """
    state = {"step": step, "holdout_loss": holdout, "tokens": step * run.plan.batch_tokens}
    if is_unfinished:
        state["is_unfinished"] = True
    if run.clock is not None:
        state["seconds_left"] = run.clock.ends - time.monotonic()

    run.saver.wait_for_all(run.ranks)
    run.saver.meeting = meeting = Meeting(run.ranks)

    def write(taken: TrainingSnapshot) -> int:
        if not run.ranks.is_first:
            save_rows(run.folder, taken, step, meeting)
            return 0
        Journal(run.folder).sync()
        folder = save_checkpoint(
            *(run.folder, taken, run.vocabulary, state),
            chat_template=run.chat_template,
            meeting=meeting,
        )
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        prune(run)
        return size

    run.saver.save(lambda room: TrainingSnapshot.of(model, optimizers, room), write)


def prune(run: Run) -> None:
    """Delete the checkpoints that are neither among the last, nor asked for, nor the best."""
    saved = list_checkpoints(run.folder)
    if not saved:
        return
    every = run.training.checkpoint_every
    keep = [point.step for point in saved if every and point.step % every == 0]
    if run.keep_best:
        keep.append(best_of(saved).step)
    last = [point.step for point in saved[-run.training.keep_last :]]
    remove_checkpoints(saved, keep=[*last, *keep])


def named_fully(paths: Sequence[str]) -> list[str]:
    """Name files and folders from the root on; addresses, globs and "-" stay as they are."""
    return [str(Path(path).absolute()) if Path(path).exists() else path for path in paths]


def begin(run: Run, model: Transformer, facts: Mapping[str, Any]) -> None:
    """Make a new run's folder.

    Args:
        run: the run.
        model: its network.
        facts: what only this way of training knows, for run.json.

    Raises:
        RunError: it cannot be made.
    """
    # Written aside and renamed: what has a run's name can be gone on with, from its first moment.
    aside = run.folder.with_name(f".{run.folder.name}.{os.getpid()}")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        (aside / SETTINGS).write_text(as_toml(run.settings), encoding="utf-8")
        write_json(aside / FACTS, facts_of(run, model, facts))
        publish(aside, run.folder)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        if run.folder.exists():
            raise RunError(
                f"{run.folder}: was made by somebody else meanwhile; choose another --name"
            ) from None
        raise RunError(f"{run.folder}: cannot be made ({error.strerror})") from None


def write_recipe(run: Run) -> None:
    """Write down a recipe that gives again a run that followed the clock, or was told on the way.

    Without the clock, and without whoever lowered its rate.
    """
    pace = " ".join(f"{step}:{steps}" for step, steps in run.pace.changes)
    rates = " ".join(f"{step}:{scale!r}" for step, scale in run.pace.scales)
    training = dataclasses.replace(
        run.training, minutes=None, steps=run.plan.steps, pace=pace or None, rates=rates or None
    )
    settings = dataclasses.replace(run.settings, training=training)
    write_text(run.folder / RECIPE, as_toml(settings))
    without = "the clock" if run.training.minutes is not None else "a hand on its rate"
    run.progress.say(f"recipe      {run.folder / RECIPE} gives the same run without {without}")


def facts_of(run: Run, model: Transformer, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a run writes down besides its settings: what was derived, versions, hardware."""
    return {
        "paths": named_fully(run.paths),
        "objective": run.settings.objective.name,
        **facts,
        "warm_start": None if run.warm_start is None else str(run.warm_start.absolute()),
        "hub": hub_sources(run.paths, run.warm_start),
        "shape": dataclasses.asdict(run.shape),
        "parameters": whole_size(model),
        "flops_per_token": run.shape.flops_per_token(),
        "plan": dataclasses.asdict(run.plan),
        "versions": versions(),
        "hardware": run.machine.describe(),
        "processes": run.ranks.size,
        "parallel": run.ranks.parallel,
        "tensor": run.ranks.tensor,
        "context": run.ranks.context,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": sys.argv[1:] if Path(sys.argv[0]).name.startswith("nextword") else [],
    }


class Resumed(NamedTuple):
    """A run that goes on, whether it learns from text or from examples."""

    folder: Path
    facts: dict[str, Any]
    settings: Settings
    checkpoint: Checkpoint | None
    """None where none was saved: it begins with its first step, as its settings say."""
    steps: int
    """Its last."""


def open_resumed(target: str, steps: int | None) -> Resumed:
    """Find what a run goes on from, and check it.

    Args:
        target: the run, or RUN@STEP.
        steps: its last step, where it is to be another than was planned.

    Raises:
        RunError: there is nothing to go on with, or it is done.
    """
    name, _, which = target.partition("@")
    folder = find_run(name)
    facts = run_facts(folder)
    settings = resolve(read_recipe(folder / SETTINGS))
    last = steps or int(facts["plan"]["steps"])
    if not which and not list_checkpoints(folder) and not unreadable_checkpoints(folder):
        return Resumed(folder, facts, settings, None, last)
    checkpoint = find_checkpoint(folder, which or "last", whole=True)
    refuse_other_facts(folder, read_shape(checkpoint.folder))
    pace = read_pace(settings.training.pace or "", last)
    if steps is None:  # a run that followed the clock ends where that had come to
        follow_journal(pace, folder, checkpoint.step)
    # Trained to its last step, but not told of: only the end is left to be done.
    ends = pace.steps == checkpoint.step and "task" not in facts
    ends = ends and not Journal(folder).has_ended()
    if pace.steps <= checkpoint.step and not checkpoint.is_unfinished and not ends:
        raise RunError(
            f"{folder.name} has done {checkpoint.step:,} of {pace.steps:,} steps; "
            f"to train longer give --training.steps above {checkpoint.step}"
        )
    return Resumed(folder, facts, settings, checkpoint, last)


def go_back(resumed: Resumed, machine: Machine, processes: int, progress: Progress) -> None:
    """Forget what a run did after the checkpoint that it goes on from; say what has changed.

    Called by the one writer of the run's folder.
    """
    mend_checkpoints(resumed.folder)
    for words in changes_since(resumed.folder, resumed.facts, machine, processes):
        progress.say(words)
    if resumed.checkpoint is None:
        progress.say("no checkpoint was saved yet: it begins again with its first step")
    # Before the first step the hold-out sentences are judged, which then is done again.
    step = -1 if resumed.checkpoint is None else resumed.checkpoint.step
    journal = Journal(resumed.folder)
    journal.forget_after(step)
    note_processes(journal, step, resumed.facts.get("processes", 1), processes)
    later = [saved for saved in list_checkpoints(resumed.folder) if saved.step > step]
    remove_checkpoints(later, keep=())
    if resumed.steps != resumed.facts["plan"]["steps"]:
        plan = {**resumed.facts["plan"], "steps": resumed.steps}
        write_json(resumed.folder / FACTS, {**resumed.facts, "plan": plan})
