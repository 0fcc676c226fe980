"""Choose the fine-tuning task by looking at the examples, and run it."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nextword.base.errors import ModelError, RunError, SettingsError
from nextword.corpus.examples import Row, read_rows
from nextword.finetune.answers import Answers, encode_turns, read_examples
from nextword.finetune.chat import template_for
from nextword.finetune.examples import labelled, look
from nextword.finetune.labels import Labels
from nextword.finetune.preferences import Preferences, read_preferences
from nextword.finetune.supervised import AnyScores, Start, Supervised, digests_of, rates
from nextword.finetune.tally import Tally
from nextword.fit import fit
from nextword.machine.device import choose_machine
from nextword.machine.ranks import Ranks
from nextword.machine.slurm import as_torchrun_would
from nextword.model.config import CONFIG, read_config
from nextword.model.folder import read_shape
from nextword.model.layouts import labels_of
from nextword.model.shape import Shape
from nextword.prediction.answers import AnswerScores
from nextword.prediction.loading import find_model_folder
from nextword.rendering.progress import Progress
from nextword.run import Run, new_folder, open_resumed
from nextword.settings import Settings
from nextword.training.dividing import arranged
from nextword.vocabulary.tokenizer import Vocabulary

TOLD = {
    "classification": "labels are names of classes: classification, with cross-entropy",
    "regression": "labels are numbers: regression, with mean squared error",
    "multi_label": "a text has any number of labels: yes or no of each, with binary cross-entropy",
    "answers": "prompts with answers: the loss counts what was answered",
    "preferences": "two answers to each prompt, of which one was preferred: DPO",
}


@dataclass(frozen=True)
class Finetuned:
    """A run that learned from examples."""

    folder: Path
    task: str
    scores: AnyScores | None
    """On the hold-out; None without one."""
    before: AnswerScores | None
    """The same before any step, of answers."""
    rows: Mapping[str, Any]
    """How many were read, learned from, held out, and left out for which reason."""
    chats: bool = False
    """Whether the examples were conversations."""


def finetune(
    start: str,
    paths: Sequence[str],
    settings: Settings,
    *,
    name: str | None = None,
    from_nothing: bool = False,
    progress: Progress | None = None,
) -> Finetuned:
    """Teach a trained model from examples.

    Args:
        start: a run, RUN@500 or a model folder.
        paths: files of examples, JSON lines or tables.
        settings: everything else.
        name: of the new run; default: the file's name and a number.
        from_nothing: begin with new weights of the same sizes, to see what training on text was
            worth.
        progress: where to say what happens.

    Raises:
        NextwordError: with one clear line, before anything is written, where the input is wrong.
    """
    progress = progress or Progress(quiet=True)
    if not paths:
        raise SettingsError("no examples; give a file ending in .jsonl, .csv or .tsv")
    start_folder = find_model_folder(start)[0]
    begun = Start(start, start_folder, tuple(paths), from_nothing)
    return _teach(begun, settings, progress, lambda: new_folder(name, paths, "examples"))


def resume(target: str, *, steps: int | None = None, progress: Progress | None = None) -> Finetuned:
    """Go on with a fine-tuning from its last checkpoint, bit for bit as if it had not stopped.

    Args:
        target: the run, or RUN@STEP to go on from there.
        steps: train to this step instead of the run's own last.
        progress: where to say what happens.

    Raises:
        RunError: there is nothing to go on with, or the examples are no longer what they were.
    """
    resumed = open_resumed(target, steps)
    folder, facts, settings = resumed.folder, resumed.facts, resumed.settings
    paths = tuple(facts["paths"])
    if "-" in paths:
        raise RunError(f"{folder.name}: its examples came from standard input and are not kept")
    if "digests" not in facts:
        raise RunError(
            f"{folder.name}: was finetuned by a version that could not go on; begin again with "
            "nextword finetune"
        )
    if digests_of(paths) != facts["digests"]:
        raise RunError(
            f"{folder.name}: its examples ({', '.join(paths)}) have changed since it began; bring "
            "them back, or begin again with nextword finetune"
        )
    settings = replace(settings, finetune=replace(settings.finetune, steps=resumed.steps))
    start = facts["warm_start"]
    # Sizes and vocabulary are the checkpoint's; what it began with is asked only for its score.
    there = start is not None and (Path(start) / CONFIG).is_file()
    if there:
        find_model_folder(start)  # refuses a checkpoint that is damaged
    if not there and resumed.checkpoint is None:
        raise RunError(f"{folder.name}: saved nothing, and {start}, which it began with, is gone")
    start_folder = Path(start) if there or not resumed.checkpoint else resumed.checkpoint.folder
    begun = Start(folder.name, start_folder, paths, start is None, resumed)
    return _teach(begun, settings, progress or Progress(quiet=True), lambda: folder)


def _teach(
    start: Start, settings: Settings, progress: Progress, folder_for: Callable[[], Path]
) -> Finetuned:
    told = {**os.environ, **as_torchrun_would(os.environ)}
    if int(told.get("WORLD_SIZE", "1")) > 1:
        raise SettingsError("finetune runs in one process; start it without a launcher")
    arranged(Ranks(), settings.machine)
    if start.from_nothing and settings.finetune.lora_rank:
        raise SettingsError(
            "LoRA stands beside weights that have learned; begin with a model's own"
        )
    rows = read_rows(start.paths, settings.corpus)
    kind = look(rows, settings.finetune, settings.labels)
    objective, find_task = _TASKS[kind]
    settings = replace(settings, objective=replace(settings.objective, name=objective))
    shape, vocabulary = read_shape(start.known_from), Vocabulary.load(start.known_from)
    if len(vocabulary) > shape.vocab_size:
        raise ModelError(f"{start.folder}: its vocabulary has more entries than the network")
    folder = folder_for()
    task, why = find_task(start, settings, rows, vocabulary, shape)
    progress.say(f"task        {TOLD[task.name]} ({why})")
    vocabulary = task.vocabulary  # with marks, where it is taught conversations now
    shape = replace(shape, vocab_size=max(shape.vocab_size, len(vocabulary)))
    machine = choose_machine(settings.machine)
    plan = task.rows.plan(settings.finetune, machine)
    run = Run(
        *(folder, settings, vocabulary, shape, plan, rates(settings, shape), machine, progress),
        start.paths,
        warm_start=None if start.from_nothing else start.folder,
        resumed=start.resumed,
        chat_template=template_for(vocabulary) if task.tally.chats else None,
        keep_best=False,  # what is used is the last step; on the way one is kept to go on from
    )
    fit(run, task)
    return Finetuned(folder, task.name, task.scores, task.before, task.counts(), task.tally.chats)


def _answers(
    start: Start, settings: Settings, rows: Sequence[Row], vocabulary: Vocabulary, shape: Shape
) -> tuple[Supervised, str]:
    """Return the task of answers, and how it was known."""
    _check_answers(start.name, start.known_from, shape)
    tally, asked = Tally(len(rows), settings.examples), settings.finetune
    examples = read_examples(rows, asked, tally)
    goes_on = start.resumed is not None and start.resumed.checkpoint is not None
    # LoRA adds to matrices alone; a run that was begun in words goes on in words.
    if tally.chats and not asked.lora_rank and not goes_on:
        vocabulary = vocabulary.with_marks()
    turns = encode_turns(examples, vocabulary, shape.context, tally)
    task = Answers(start, vocabulary, tally, turns, asked, shape.context)
    return task, f"known by their fields: {', '.join(tally.shapes)}"


def _preferences(
    start: Start, settings: Settings, rows: Sequence[Row], vocabulary: Vocabulary, shape: Shape
) -> tuple[Supervised, str]:
    """Return the task of preferences, and how it was known.

    Raises:
        SettingsError: there is no model to compare with.
    """
    _check_answers(start.name, start.known_from, shape)
    if start.from_nothing:
        raise SettingsError("preferences are learned beside the model that it begins with")
    tally, asked = Tally(len(rows), settings.examples), settings.finetune
    pairs = read_preferences(rows, vocabulary, asked, shape.context, tally)
    task = Preferences(start, vocabulary, tally, pairs, asked)
    return task, "known by their fields: chosen and rejected"


def _labels(
    start: Start, settings: Settings, rows: Sequence[Row], vocabulary: Vocabulary, shape: Shape
) -> tuple[Supervised, str]:
    """Return the task of labels, and how it was known."""
    tally = Tally(len(rows), settings.examples)
    known = labelled(rows, settings.finetune, settings.labels, tally)
    tally.remarks = known.notes
    task = Labels(start, vocabulary, tally, known, settings.finetune, shape)
    return task, f"{known.kind.reason}; --labels.kind for another"


_TASKS = {
    "answers": ("answer", _answers),
    "preferences": ("preference", _preferences),
    "labels": ("labelled", _labels),
}
"""By what the examples are: the objective, and what makes the task."""


def _check_answers(start: str, start_folder: Path, shape: Shape) -> None:
    """Refuse a model that cannot answer.

    Raises:
        SettingsError: it looks to both sides.
        ModelError: its head gives labels.
    """
    if not shape.causal:
        raise SettingsError(
            f"{start}: a masked model cannot write an answer; take one that predicts the next token"
        )
    if labels_of(read_config(start_folder), start_folder / CONFIG) is not None:
        raise ModelError(
            f"{start}: its head gives labels and no longer words; take the model that it was "
            "finetuned from"
        )
