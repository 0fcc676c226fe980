"""Load a trained model: by name, path, model folder, `latest`, `RUN@last` or `RUN@500`."""

import os
import sys
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from msgspec import Struct

from nextword.base.errors import EvaluationError, ModelError, RunError, VocabularyError
from nextword.base.options import nearest
from nextword.base.records import Count, Place, as_record, read_json
from nextword.base.terminal import for_stream
from nextword.corpus.hub import fetch_model, hub_name, model_on_hub
from nextword.machine.device import Machine, choose_machine
from nextword.machine.options import MachineSettings
from nextword.model.config import CONFIG, read_config
from nextword.model.folder import read_model
from nextword.model.labels import SequenceClassifier
from nextword.model.layouts import KINDS, labels_of
from nextword.model.shape import Shape
from nextword.model.transformer import Transformer
from nextword.objectives import Objective, find_objective, objective_of
from nextword.training.checkpoint import (
    JINJA,
    Checkpoint,
    best_of,
    list_checkpoints,
    unreadable_checkpoints,
)
from nextword.training.loop import Plan
from nextword.training.vouched import STATE, find_damage
from nextword.vocabulary.options import VocabularySettings
from nextword.vocabulary.prepared import CorpusFacts
from nextword.vocabulary.reading import read_tokenizer_config
from nextword.vocabulary.tokenizer import Vocabulary

RUNS = "runs"
FACTS = "run.json"
LARGEST_TEMPLATE = 1 << 20
"""Characters of a chat template, and of what it makes of a conversation beside what is said."""


@dataclass(frozen=True)
class Opened:
    """A model ready to be asked."""

    folder: Path
    """The model folder."""
    run: Path | None
    """The run it belongs to, if any."""
    step: int | None
    model: Transformer
    vocabulary: Vocabulary
    machine: Machine
    objective: Objective = field(default_factory=lambda: find_objective("causal"))

    @property
    def name(self) -> str:
        """What it is called: its run and step, or its folder."""
        if self.run is None:
            known = hub_name(self.folder.absolute())
            return known[0].rpartition("/")[2] if known else self.folder.name
        return self.run.name if self.step is None else f"{self.run.name}@{self.step}"

    @cached_property
    def chat_template(self) -> str | None:
        """The template by which its folder says that conversations are written, if it does."""
        file = self.folder / JINJA
        try:
            if file.is_file() and file.stat().st_size <= LARGEST_TEMPLATE:
                return file.read_text(encoding="utf-8")
            found = read_tokenizer_config(self.folder).chat_template
        except (OSError, UnicodeError, VocabularyError):
            return None
        for one in found if isinstance(found, list) else ():  # several, each with a name
            if isinstance(one, dict) and one.get("name") == "default":
                found = one.get("template")
        return found if isinstance(found, str) else None

    def refuse(self, verb: str) -> None:
        """Say why something cannot be asked of this model, if so.

        Raises:
            EvaluationError: it cannot.
        """
        _refuse(self.name, self.objective, verb)

    @property
    def labeller(self) -> SequenceClassifier:
        """The model, where it gives labels.

        Raises:
            EvaluationError: it gives none.
        """
        if not isinstance(self.model, SequenceClassifier):
            self.refuse("classify")
            raise EvaluationError(f"{self.name}: this model gives no labels")
        return self.model


def runs_folder() -> Path:
    """Return where runs are kept: NEXTWORD_RUNS, or `runs` in the current folder."""
    return Path(os.environ.get("NEXTWORD_RUNS", RUNS))


def list_runs(folder: Path | None = None) -> list[Path]:
    """List the runs in a folder, the oldest first."""
    found = (folder or runs_folder()).glob(f"*/{FACTS}")
    named = (file.parent for file in found if not file.parent.name.startswith("."))
    return sorted(named, key=lambda run: (run / FACTS).stat().st_mtime)


def run_facts(run: Path) -> dict[str, Any]:
    """Read what a run wrote down about itself.

    Raises:
        RunError: it wrote nothing readable.
    """
    file = run / FACTS
    facts: dict[str, Any] = read_json(file, RunError)
    as_record(facts, _Facts, file, RunError)
    return facts


class _Versions(Struct):
    nextword: str
    torch: str


class _Hardware(Struct):
    name: str
    precision: str
    threads: int


class _Facts(Struct):
    """What a run must say of itself."""

    paths: list[Place]
    shape: Shape
    plan: Plan
    parameters: Count
    flops_per_token: Count
    versions: _Versions
    hardware: _Hardware
    objective: str | None = None
    prepared: Place | None = None
    corpus: CorpusFacts | None = None
    warm_start: Place | None = None
    hub: dict[str, dict[str, str]] = {}
    task: str | None = None
    rows: dict[str, Any] | None = None
    digests: Any = None

    def __post_init__(self) -> None:
        """A run learned from a text, or from the examples of a task."""
        if self.task is None and self.corpus is None:
            raise ValueError("missing required field `corpus`")


def prepared_folder(run: Path, facts: dict[str, Any]) -> Path:
    """Return where a run's text lies prepared.

    Raises:
        RunError: its facts do not say.
    """
    if not isinstance(folder := facts.get("prepared"), str):
        raise RunError(f"{run / FACTS}: damaged: it does not say where the prepared text lies")
    return Path(folder)


def find_run(name: str) -> Path:
    """Find a run by name, path or `latest`.

    Raises:
        RunError: there is none; the message lists those that exist.
    """
    runs = list_runs()
    if name == "latest":
        if not runs:
            raise RunError(f"no run in {runs_folder()} yet; `nextword train` makes one")
        return runs[-1]
    for candidate in (runs_folder() / name, Path(name)):
        if (candidate / FACTS).is_file():
            return candidate
    known = [run.name for run in runs]
    there = (
        f"there are: {', '.join(known[-10:])}"
        if known
        else "there are none yet; `nextword train` makes one"
    )
    raise RunError(f"no run {name!r} in {runs_folder()}; {there}.{nearest(name, known)}")


def learned_from_examples(target: str) -> bool:
    """Whether a run, or RUN@STEP, was made by fine-tuning.

    Raises:
        RunError: there is no such run.
    """
    return "task" in run_facts(find_run(target.partition("@")[0]))


def find_checkpoint(run: Path, which: str, *, whole: bool = False) -> Checkpoint:
    """Find one of a run's checkpoints, whose files are as they were saved.

    Where the one asked for as the best or the last is damaged, the newest that is not is taken in
    its place, and that is said on the error stream. One asked for by its step is refused.

    Args:
        run: its folder.
        which: "" or "best", "last", or a step.
        whole: training goes on from it, so its optimizer's state counts too.

    Raises:
        RunError: there is no such checkpoint, and the message lists those that exist; or none is
            whole.
    """
    saved = list_checkpoints(run)
    damage = [f"{folder}: damaged" for folder in unreadable_checkpoints(run)]
    if not saved and not damage:
        raise RunError(
            f"{run}: no checkpoint was saved yet; nextword train --resume {run.name} goes on"
        )
    if which in ("", "best", "last"):
        wanted = saved[::-1] if which == "last" else [best_of(saved), *saved[::-1]] if saved else []
        for checkpoint in wanted:
            found = find_damage(checkpoint.folder, whole=whole)
            if not found:
                for words in damage:
                    line = f"{words}; step {checkpoint.step:,} is used instead\n"
                    sys.stderr.write(for_stream(line, sys.stderr))
                return checkpoint
            damage.append(found)
        raise RunError(f"{run}: no checkpoint is whole ({damage[-1]})")
    for checkpoint in saved:
        if which == str(checkpoint.step):
            if found := find_damage(checkpoint.folder, whole=whole):
                raise RunError(f"{found}; name the run without @{which} for one that is whole")
            return checkpoint
    steps = ", ".join(str(checkpoint.step) for checkpoint in saved)
    raise RunError(
        f"{run.name}@{which}: no such checkpoint; there are best, last and steps {steps}"
    )


def find_model_folder(target: str) -> tuple[Path, Path | None, int | None]:
    """Resolve RUN, or a model's name on the Hub, to a model folder, its run and its step."""
    path = Path(target)
    if (path / CONFIG).is_file():
        run = path.parent.parent if path.parent.name == "checkpoints" else None
        number = path.name.removeprefix("step-")
        step = int(number) if run and number != path.name and number.isdecimal() else None
        if (path / STATE).is_dir() and (found := find_damage(path, whole=False)):
            raise RunError(f"{found}; open another checkpoint")
        return path, run if run and (run / FACTS).is_file() else None, step
    name, _, which = target.partition("@")
    if (
        path.is_dir()
        and not (path / FACTS).is_file()
        and not (runs_folder() / name / FACTS).is_file()
    ):
        raise RunError(f"{target}: neither a run (no {FACTS}) nor a model folder (no {CONFIG})")
    if (on_hub := model_on_hub(target)) is not None:
        return fetch_model(*on_hub), None, None
    run = find_run(name)
    checkpoint = find_checkpoint(run, which)
    return checkpoint.folder, run, checkpoint.step


def with_source(settings: VocabularySettings) -> VocabularySettings:
    """Resolve a vocabulary's source that is the name of a run to its checkpoint's folder.

    Raises:
        RunError: it is a checkpoint's folder, and damaged.
    """
    source = settings.source
    if source is None or Path(source).is_file():
        return settings
    if (Path(source) / "tokenizer.json").is_file():
        if (Path(source) / STATE).is_dir():
            find_model_folder(source)  # refuses a checkpoint that is damaged
        return settings
    try:
        folder = find_model_folder(source)[0]
    except RunError:
        return settings  # whoever reads it says what is missing
    return replace(settings, source=str(folder))


def open_model(target: str, machine: MachineSettings | None = None) -> Opened:
    """Open a model for asking, in float32.

    Args:
        target: RUN, RUN@last, RUN@500, `latest`, or the path of any model folder.
        machine: where to compute.

    Raises:
        RunError: there is no such run or checkpoint.
        ModelError: the folder is damaged.
    """
    folder, run, step = find_model_folder(target)
    where = choose_machine(machine or MachineSettings()).in_float32()
    model = read_model(folder).to(where.device).eval()
    vocabulary, objective = Vocabulary.load(folder), objective_in(folder, run)
    if len(vocabulary) > model.shape.vocab_size:
        raise ModelError(
            f"{folder}: its vocabulary has {len(vocabulary):,} entries, and its network knows "
            f"{model.shape.vocab_size:,}; the two are not of one model"
        )
    if run is not None:
        refuse_other_facts(run, model.shape)
    _refuse_no_scores(model, vocabulary.begin_id, folder)
    return Opened(folder, run, step, model, vocabulary, where, objective)


@torch.inference_mode()
def _refuse_no_scores(model: Transformer, begin_id: int, folder: Path) -> None:
    """Refuse weights that are numbers, and whose products are too large to be some.

    One token is read by the whole network, which costs as much as reading the weights once more.
    """
    ids = torch.tensor([[begin_id]], device=model.device)
    if isinstance(model, SequenceClassifier):
        scores = model.logits(ids, torch.ones(1, dtype=torch.long, device=model.device))
    else:
        scores = model(ids)
    if not scores.isfinite().all():
        raise ModelError(
            f"{folder}: what it computes of one token is no number: weights are damaged, or too "
            "large for float32"
        )


def refuse_other_facts(run: Path, shape: Shape) -> None:
    """Refuse a run.json that describes another network than a checkpoint's config.json does.

    Raises:
        RunError: names the first figure that differs.
    """
    told = run_facts(run)["shape"]
    for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "context"):
        if told.get(name) != getattr(shape, name):
            raise RunError(
                f"{run / FACTS}: {name} is {told.get(name)}, and {getattr(shape, name)} in its "
                "checkpoint; it is another run's: bring this run's own back"
            )


def refuse_verb(target: str, verb: str) -> None:
    """Say why something cannot be asked of a model, if so, before it is opened.

    Raises:
        EvaluationError: it cannot.
    """
    folder, run, _ = find_model_folder(target)
    _refuse(target, objective_in(folder, run), verb)


def _refuse(name: str, objective: Objective, verb: str) -> None:
    if reason := objective.cannot.get(verb):
        raise EvaluationError(
            f"{name}: no `{verb}` of a model of the objective {objective.name!r}: {reason}"
        )


def objective_in(folder: Path, run: Path | None) -> Objective:
    """Find out what a model was asked: the run knows, or the folder's layout says."""
    if run is not None and (name := run_facts(run).get("objective")):
        return find_objective(str(name))
    config = read_config(folder)
    if labels_of(config, folder / CONFIG) is not None:
        return find_objective("labelled")
    kind = KINDS.get(config.model_type)
    return objective_of(kind.language_model if kind else config.architecture)
