"""Command line: train, finetune, prepare."""

import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from nextword.base.files import refuse_runs_own
from nextword.base.signals import Terminated
from nextword.cli.processes import DIVIDING, Several, in_processes
from nextword.cli.program import (
    TRAIN,
    AsJson,
    Paths,
    Run,
    app,
    leave,
    named,
    say,
    takes,
    write,
)
from nextword.settings import Settings

if TYPE_CHECKING:
    from nextword.finetune.task import Finetuned
    from nextword.rendering.progress import Progress

WITH_RESUME = {"training.steps", *DIVIDING}
"""Options that change how far a run goes or who holds what of it, and nothing that it learns."""
TAUGHT = ("finetune", "examples", "labels")
"""Rooms of settings for examples that a person prepared."""
Tools = Annotated[
    tuple[Literal["tensorboard", "wandb", "mlflow", "trackio"], ...],
    Parameter(
        name="--track",
        negative=(),
        help="tell this tracker of it, in a process beside; repeatable",
        show_default=False,
    ),
]


@app.command(group=TRAIN)
@takes(tuple(room.name for room in dataclasses.fields(Settings) if room.name not in TAUGHT))
def train(
    *paths: Paths,
    name: Annotated[
        str | None, Parameter(help="of the run (default: the text's name and a number)")
    ] = None,
    recipe: Annotated[
        Path | None, Parameter(help="a TOML file of options; those given here overrule it")
    ] = None,
    from_: Annotated[
        str | None,
        Parameter(
            name="--from", help="begin with the weights and vocabulary of this run or model folder"
        ),
    ] = None,
    resume: Annotated[str | None, Parameter(help="go on with this run")] = None,
    minutes: Annotated[
        float | None,
        Parameter(help="the best model that this machine can train in this time, all counted"),
    ] = None,
    dry_run: Annotated[
        bool,
        Parameter(negative=(), help="say what it would take and come to, and train nothing"),
    ] = False,
    rate: Annotated[
        float | None,
        Parameter(help="with --dry-run: TFLOP/s that another device really does, to foresee it"),
    ] = None,
    processes: Annotated[
        int | None,
        Parameter(help="train by so many processes on this machine: one for each of its GPUs"),
    ] = None,
    restarts: Annotated[
        int,
        Parameter(help="begin again from the last checkpoint where a process fails, so many times"),
    ] = 0,
    again: Annotated[
        bool,
        Parameter(
            negative=(),
            help="go on with the run of this --name where there is one, for jobs that a cluster "
            "begins again",
        ),
    ] = False,
    watch: Annotated[
        bool, Parameter(negative=(), help="show it on a page of this machine while it learns")
    ] = False,
    track: Tools = (),
    quiet: Annotated[bool, Parameter(negative=(), help="say nothing")] = False,
    json_: AsJson = False,
    **options: Any,
) -> None:
    """Train a model on text: files, folders, globs or "-".

    Without a path, on the built-in stories.
    """
    began = time.monotonic()
    from nextword.base.errors import SettingsError
    from nextword.settings import read_recipe, resolve

    paths = named(paths)
    if minutes is not None:
        options["training.minutes"] = minutes
    if rate is not None and (rate <= 0 or not dry_run):
        raise SettingsError("--rate says what another device does, to --dry-run; above 0")
    if resume is not None and (
        paths or name or recipe or from_ or dry_run or options.keys() - WITH_RESUME
    ):
        raise SettingsError(
            "--resume goes on with a run as it is; only --training.steps may be given with it, and "
            "of several processes --machine.parallel, --machine.tensor and --machine.context"
        )
    settings = resolve(read_recipe(recipe) if recipe else None, options)
    if paths:
        from nextword.vocabulary.training_data import check_paths

        check_paths(paths)  # a missing path is said before anything heavy is imported
    asked = Several(processes, restarts, name, resume, options.get("training.steps"), again)
    resume = in_processes(asked, paths, settings.corpus.builtin, dry_run=dry_run)
    from nextword import pretrain
    from nextword.prediction.loading import learned_from_examples
    from nextword.run import Interrupted

    _check_tools(track)
    progress = _begin(quiet=quiet, watch=watch and not dry_run, track=() if dry_run else track)
    steps = options.get("training.steps")
    if dry_run:
        from nextword.rendering.forecast import describe_forecast

        found = pretrain.foresee(paths, settings, start=from_, progress=progress)
        write(json.dumps(found.as_dict()) if json_ else describe_forecast(found, rate))
        return
    try:
        if resume is not None and learned_from_examples(resume):
            from nextword.finetune import resume as teach_on

            taught = teach_on(resume, steps=steps, progress=progress)
            _tell_of(taught, progress, json_=json_)
            return
        if resume is not None:
            machine = {
                name.removeprefix("machine."): options[name] for name in DIVIDING if name in options
            }
            done = pretrain.resume(resume, steps=steps, machine=machine, progress=progress)
        else:
            done = pretrain.train(
                *(paths, settings), name=name, start=from_, progress=progress, began=began
            )
    except Interrupted as stopped:
        _tell_those_beside(stopped.run)
        leave(str(stopped), stopped.status)
    _tell_those_beside(done.folder)
    if json_ and done.final is not None:
        write(json.dumps(done.as_dict()))


def _check_tools(track: tuple[str, ...]) -> None:
    """Say what is not installed before anything is trained."""
    from nextword.track.tracker import check_tool

    for tool in track:
        check_tool(tool)


def _begin(*, quiet: bool, watch: bool, track: tuple[str, ...]) -> "Progress":
    """Say where the training says how it goes, and start what follows it in other processes."""
    from nextword.rendering.progress import Progress

    if (watch or track) and os.environ.get("RANK", "0") == "0":  # of several processes the first
        from nextword.watch import beside

        if watch:
            beside.start("watch")
        for tool in track:
            beside.start("track", "--to", tool, *(["--quiet"] if quiet else []), say=say)
    return Progress(quiet=quiet)


def _tell_those_beside(run: Path) -> None:
    if "nextword.watch.beside" in sys.modules:
        sys.modules["nextword.watch.beside"].tell(run)


@app.command(group=TRAIN)
@takes((*TAUGHT, "machine"))
def finetune(
    run: Run,
    *paths: Annotated[str, Parameter(help="examples: files ending in .jsonl, .csv or .tsv")],
    name: Annotated[
        str | None, Parameter(help="of the new run (default: the file's name and a number)")
    ] = None,
    text: Annotated[str | None, Parameter(help="the field that holds the text")] = None,
    label: Annotated[str | None, Parameter(help="the field that holds the label")] = None,
    format_: Annotated[
        str | None, Parameter(name="--format", help="how to read files (default: by their names)")
    ] = None,
    errors: Annotated[
        str | None, Parameter(help="bytes that are not UTF-8: strict stops, replace puts U+FFFD")
    ] = None,
    from_nothing: Annotated[
        bool,
        Parameter(negative=(), help="begin with new weights, to see what RUN's were worth"),
    ] = False,
    track: Tools = (),
    quiet: Annotated[bool, Parameter(negative=(), help="say nothing")] = False,
    json_: AsJson = False,
    **options: Any,
) -> None:
    """Teach a trained model from examples that a person prepared.

    Texts with labels (classes, numbers, or lists of several), prompts with answers, chats, or
    prompts with two answers of which one was preferred.
    """
    from nextword.settings import resolve

    given = {
        "finetune.text": text,
        "finetune.label": label,
        "corpus.format": format_,
        "corpus.errors": errors,
    }
    options |= {path: value for path, value in given.items() if value is not None}
    settings = resolve(given=options)
    from nextword.corpus.documents import find_files

    find_files(named(paths))  # a missing path is said before anything heavy is imported
    from nextword.finetune import finetune as teach
    from nextword.run import Interrupted

    _check_tools(track)
    progress = _begin(quiet=quiet, watch=False, track=track)

    try:
        done = teach(
            run, named(paths), settings, name=name, from_nothing=from_nothing, progress=progress
        )
    except Interrupted as stopped:
        _tell_those_beside(stopped.run)
        leave(str(stopped), stopped.status)
    _tell_of(done, progress, json_=json_)


def _tell_of(done: "Finetuned", progress: "Progress", *, json_: bool) -> None:
    """Say what came of a fine-tuning."""
    _tell_those_beside(done.folder)
    from nextword.rendering.finetuned import describe_taught

    scores = done.scores
    progress.say(describe_taught(done.folder, done.task, scores, done.before, done.chats))
    if json_:
        known = {} if scores is None else scores.as_dict()
        write(json.dumps({"run": str(done.folder), **known, "rows": done.rows}))


@app.command(group=TRAIN)
@takes(("corpus", "vocabulary"))
def prepare(
    *paths: Paths,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="folder to make")],
    json_: AsJson = False,
    **options: Any,
) -> None:
    """Turn text into token shards once, for many runs.

    Train on the folder afterwards.
    """
    from nextword.rendering.formatting import argument
    from nextword.rendering.training import describe_text
    from nextword.settings import resolve
    from nextword.vocabulary.encode import silent
    from nextword.vocabulary.leakage_report import check_leaks
    from nextword.vocabulary.training_data import check_paths, gather

    paths, settings = named(paths), resolve(given=options)
    check_paths(paths)
    refuse_runs_own(output)
    report = silent if json_ else say
    from nextword.prediction.loading import with_source

    try:
        chosen = with_source(settings.vocabulary)
        made = gather(paths, settings.corpus, chosen, report, output)
        leaks = check_leaks(made, report)
    except KeyboardInterrupt as stopped:
        status = 143 if isinstance(stopped, Terminated) else 130
        leave("stopped; the same command goes on where it was", status)
    if json_:
        size = {"vocab_size": made.facts["entries"]}
        write(json.dumps({"folder": str(output), **made.facts, **size, "leaks": leaks}))
    else:
        write(describe_text(made.facts, output))
        write(f"\nTry next:\n  nextword train {argument(str(output))}")
