"""Choose the fine-tuning task by looking at the examples, and run it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nextword.base.errors import ModelError, RunError, SettingsError
from nextword.corpus.examples import read_rows
from nextword.finetune.answers import read_turns, teach_answers
from nextword.finetune.chat import TEMPLATE
from nextword.finetune.examples import labelled, look
from nextword.finetune.kinds import TASKS
from nextword.finetune.labels import teach_labels
from nextword.finetune.loop import FinetuneLoop, Taught
from nextword.finetune.tally import Tally
from nextword.machine.device import choose_machine
from nextword.model.folder import read_shape
from nextword.model.layouts import CONFIG, labels_of, read_config
from nextword.model.shape import Shape
from nextword.prediction.loading import find_model_folder
from nextword.rendering.progress import Progress
from nextword.run import new_folder
from nextword.settings import Settings
from nextword.vocabulary.tokenizer import Vocabulary

TOLD = {
    "classification": "labels are names of classes: classification, with cross-entropy",
    "regression": "labels are numbers: regression, with mean squared error",
    "multi_label": "a text has any number of labels: yes or no of each, with binary cross-entropy",
    "answers": "prompts with answers: the loss counts what was answered",
}


@dataclass(frozen=True)
class Finetuned:
    """A run that learned from examples."""

    folder: Path
    task: str
    taught: Taught


def finetune(
    start: str,
    paths: Sequence[str],
    settings: Settings,
    *,
    name: str | None = None,
    from_nothing: bool = False,
    screen: Progress | None = None,
) -> Finetuned:
    """Teach a trained model from examples.

    Args:
        start: a run, RUN@500 or a model folder.
        paths: files of examples, JSON lines or tables.
        settings: everything else.
        name: of the new run; default: the file's name and a number.
        from_nothing: begin with new weights of the same sizes, to see what training on text was
            worth.
        screen: where to say what happens.

    Raises:
        NextwordError: with one clear line, before anything is written, where the input is wrong.
    """
    screen = screen or Progress(quiet=True)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SettingsError("finetune runs in one process; start it without a launcher")
    if not paths:
        raise SettingsError("no examples; give a file ending in .jsonl, .csv or .tsv")
    rows = read_rows(paths, settings.corpus)
    tally = Tally(len(rows), settings.examples)
    is_answers = look(rows, settings.finetune, settings.labels) == "answers"
    origin = find_model_folder(start)[0]
    shape, vocabulary = read_shape(origin), Vocabulary.load(origin)
    if len(vocabulary) > shape.vocab_size:
        raise ModelError(f"{origin}: its vocabulary has more entries than the network")
    folder = new_folder(name, paths, "examples")
    if folder.exists():
        raise RunError(f"{folder}: exists already; give another --name")
    known, turns = None, []
    if is_answers:
        _check_answers(start, origin, shape)
        turns = read_turns(rows, vocabulary, settings.finetune, shape.context, tally)
        task, why = "answers", f"known by their fields: {', '.join(tally.shapes)}"
    else:
        known = labelled(rows, settings.finetune, settings.labels, tally)
        task, why = TASKS[known.kind.name], f"{known.kind.reason}; --labels.kind for another"
    screen.say(f"task        {TOLD[task]} ({why})")
    objective = "answer" if is_answers else "labelled"
    settings = replace(settings, objective=replace(settings.objective, name=objective))
    course = FinetuneLoop(
        folder=folder,
        origin=origin,
        from_nothing=from_nothing,
        shape=shape,
        vocabulary=vocabulary,
        machine=choose_machine(settings.machine),
        settings=settings,
        task=task,
        paths=paths,
        screen=screen,
        tally=tally,
        chat_template=TEMPLATE if tally.chats else None,
    )
    if known is None:
        return Finetuned(folder, task, teach_answers(course, turns))
    for note in known.notes:
        screen.say(f"note        {note}")
    return Finetuned(folder, task, teach_labels(course, known))


def _check_answers(start: str, origin: Path, shape: Shape) -> None:
    """Refuse a model that cannot answer.

    Raises:
        SettingsError: it looks to both sides.
        ModelError: its head gives labels.
    """
    if not shape.causal:
        raise SettingsError(
            f"{start}: a masked model cannot write an answer; take one that predicts the next token"
        )
    if labels_of(read_config(origin), origin / CONFIG) is not None:
        raise ModelError(
            f"{start}: its head gives labels and no longer words; take the model that it was "
            "finetuned from"
        )
