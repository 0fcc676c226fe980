"""Command line: explain, audit, replay, ruler, report, compare, tour."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from nextword.base.terminal import columns_of
from nextword.cli.program import EXPLAIN, AsJson, Run, app, leave, named, say, text_of, write

TOUR = "tour"
"""Name of the run that the tour trains where none is given."""
Text = Annotated[str, Parameter(help='the text, or "-" for standard input')]


@app.command(group=EXPLAIN)
def explain(
    run: Run,
    text: Text,
    *,
    top: Annotated[int, Parameter(help="candidates to list at each place")] = 0,
    json_: AsJson = False,
) -> None:
    """Judge a text piece by piece: how likely was what came?

    Each mistake is its −log P; their sum stands beside the product, then the average,
    perplexity and bits a byte.
    """
    from nextword import language_model
    from nextword.rendering.trace import describe_trace

    judged = language_model.load(run).explain(text_of(text), max(top, 1))
    if json_:
        write(json.dumps(judged.as_dict()))
    else:
        color = has_color()
        write(
            describe_trace(judged, top=top, color=color, width=columns_of(sys.stdout)),
            is_colored=color,
        )


@app.command(group=EXPLAIN)
def attention(
    run: Run,
    text: Text,
    *,
    head: Annotated[
        str, Parameter(help="draw this one's map, as LAYER.HEAD, each counted from 1")
    ] = "",
    output: Annotated[
        Path | None,
        Parameter(name=["--output", "-o"], help="write all maps as one page, to point at"),
    ] = None,
    force: Annotated[bool, Parameter(negative=(), help="replace a file that is there")] = False,
    json_: AsJson = False,
) -> None:
    """Show where each head of each layer looks, at each piece."""
    from nextword.base.files import check_output, write_output

    if output is not None:
        check_output(output, force=force)
    from nextword import language_model
    from nextword.explanation.attention import attend
    from nextword.rendering.attention import attention_page, describe_heads, describe_map

    maps = attend(language_model.load(run).opened, text_of(text))
    if output is not None:
        write_output(output, attention_page(maps), force=force)
        say(f"{output} ({output.stat().st_size:,} bytes); open it in a browser")
    if json_:
        write(json.dumps(maps.as_dict()))
    elif head:
        write(describe_map(maps, *_head_of(head, *maps.weights.shape[:2])))
    elif output is None:
        write(describe_heads(maps))


def _head_of(head: str, layers: int, heads: int) -> tuple[int, int]:
    """Read which head is meant.

    Raises:
        SettingsError: there is no such one.
    """
    from nextword.base.errors import SettingsError

    layer, _, number = head.partition(".")
    if layer.isdigit() and number.isdigit():
        chosen = int(layer), int(number)
        if 0 < chosen[0] <= layers and 0 < chosen[1] <= heads:
            return chosen
    raise SettingsError(f"--head {head}: expected 1.1 to {layers}.{heads}")


@app.command(group=EXPLAIN)
def audit(
    run: Run,
    text: Text,
    *,
    token: Annotated[
        int | None,
        Parameter(help="which piece, counted from 1 (default: the one that surprised most)"),
    ] = None,
    top: Annotated[int, Parameter(help="of the likeliest pieces to show")] = 5,
    rate: Annotated[
        float | None,
        Parameter(help="of the step (default: such that the loss falls by about a hundredth)"),
    ] = None,
    json_: AsJson = False,
) -> None:
    """Take one prediction apart, down to one step of training.

    From pieces, logits and softmax to −log p, and from p − y to what one step changes.
    """
    from nextword import language_model
    from nextword.rendering.audit import describe_audit

    taken = language_model.load(run).audit(text_of(text), token=token, top=max(top, 1), rate=rate)
    write(json.dumps(taken.as_dict()) if json_ else describe_audit(taken))


@app.command(group=EXPLAIN)
def replay(
    run: Run,
    *,
    columns: Annotated[int, Parameter(help="moments to show side by side")] = 7,
    json_: AsJson = False,
) -> None:
    """Show how pinned sentences were judged while a run learned.

    Token by token, at step 0, on the way and at the end.
    """
    from nextword.base.errors import RunError
    from nextword.explanation.replay import read_replay
    from nextword.prediction.loading import find_model_folder, refuse_verb
    from nextword.rendering.replay import describe_replay

    folder, owner, _ = find_model_folder(run)
    if owner is None:
        raise RunError(f"{folder}: this model belongs to no run; how it learned is not known")
    refuse_verb(run, "replay")
    known = read_replay(owner)
    write(
        json.dumps(known.as_dict())
        if json_
        else describe_replay(known, columns=max(columns, 2), width=columns_of(sys.stdout))
    )


@app.command(group=EXPLAIN)
def ruler(
    run: Run,
    *,
    primed: Annotated[
        bool, Parameter(help="measure compressors after the training text too (slower)")
    ] = True,
    json_: AsJson = False,
) -> None:
    """Say how good a loss is: beside guessing, counting, packing.

    And beside the least that is possible, where that is known.
    """
    from nextword import language_model
    from nextword.rendering.ruler import describe_ruler

    model = language_model.load(run)
    model.opened.refuse("ruler")
    say("scoring, counting and compressing the held-out text …")
    measured = model.ruler(primed=primed)
    write(
        json.dumps(measured.as_dict())
        if json_
        else describe_ruler(measured, width=columns_of(sys.stdout))
    )


@app.command(group=EXPLAIN)
def report(
    run: Run,
    *,
    output: Annotated[
        Path | None,
        Parameter(name=["--output", "-o"], help="file to write (default: RUN's name and .html)"),
    ] = None,
    force: Annotated[
        bool, Parameter(negative=(), help="overwrite the output if it exists")
    ] = False,
) -> None:
    """Write a run's whole story as one HTML file.

    It needs no network.
    """
    from nextword import language_model
    from nextword.base.files import check_output

    if output is not None:
        check_output(output, force=force)  # before anything heavy is imported
    model = language_model.load(run)
    file = output or Path(f"{model.name.partition('@')[0]}.html")
    check_output(file, force=force)
    model.opened.refuse("report")
    say("scoring, counting and compressing the held-out text …")
    model.report(file, force=force)
    write(f"{file} ({file.stat().st_size:,} bytes); open it in a browser")


@app.command(group=EXPLAIN)
def compare(
    *given: Annotated[str, Parameter(help="two runs or more, then a text or a path")],
    field: Annotated[str, Parameter(help="the field or column that holds the text")] = "text",
    json_: AsJson = False,
) -> None:
    """Judge the same text by several models, side by side.

    The last argument is the text itself, or the path of a file or folder with documents; then it is
    said which differences could be chance.
    """
    from nextword.base.errors import SettingsError
    from nextword.prediction.loading import FACTS, runs_folder

    *runs, text = named(given) or ("",)
    if len(runs) < 2:
        raise SettingsError("give two runs or more, and after them a text or a path")
    is_path = _is_path(text)
    if not any(letter.isspace() for letter in text) and (
        (runs_folder() / text.partition("@")[0] / FACTS).is_file() or (Path(text) / FACTS).is_file()
    ):
        raise SettingsError(f"{text}: is a run; after the runs give a text or a path to judge")
    from nextword import language_model
    from nextword.rendering.compare import describe_comparison_of_models

    known = [language_model.load(run) for run in runs]
    if is_path:
        found = language_model.compare(known, path=text, field=field)
    else:
        found = language_model.compare(known, text=sys.stdin.read() if text == "-" else text)
    write(json.dumps(found.as_dict()) if json_ else describe_comparison_of_models(found))


@app.command(group=EXPLAIN)
def tour(
    run: Annotated[
        str | None, Parameter(help="whose numbers to show (default: a small one, trained first)")
    ] = None,
    *,
    stop: Annotated[
        int | None, Parameter(help="show this stop only, counted from 1 (default: all, one by one)")
    ] = None,
) -> None:
    """Walk through the ideas, with the numbers of a real run."""
    from nextword import language_model
    from nextword.base.errors import SettingsError
    from nextword.rendering.tour_page import describe_stop

    walk = language_model.load(run or _small_run()).tour()
    if stop is not None and not 1 <= stop <= len(walk):
        raise SettingsError(f"--stop {stop}: the tour has the stops 1 to {len(walk)}")
    for number, place in enumerate(walk, start=1):
        if stop not in (None, number):
            continue
        write(describe_stop(place, number, len(walk)) + "\n")
        waits = stop is None and number < len(walk)
        if waits and sys.stdin.isatty() and sys.stdout.isatty():
            try:
                input("Enter for the next stop, Ctrl-C to leave ")
            except EOFError:
                return
            write("")


def _is_path(text: str) -> bool:
    """Whether an argument is a path and no text: it is there, or looks like one."""
    from nextword.corpus.addresses import is_address
    from nextword.corpus.documents import looks_readable

    try:
        if Path(text).exists():
            return True
    except OSError:
        return False  # too long for a path
    one_word = bool(text) and not any(letter.isspace() for letter in text)
    return one_word and (is_address(text) or looks_readable(text) or any(s in text for s in "*[/"))


def _small_run() -> str:
    """Return the tour's own run; train it where there is none yet."""
    from functools import partial

    from nextword import pretrain
    from nextword.prediction.loading import FACTS, run_facts, runs_folder
    from nextword.rendering.progress import Progress
    from nextword.run import Interrupted
    from nextword.settings import Settings
    from nextword.training.checkpoint import list_checkpoints

    folder = runs_folder() / TOUR
    if not (folder / FACTS).is_file():
        say(f"the tour wants a model: training a small one on built-in stories, as {folder}\n")
        start = partial(pretrain.train, (), Settings(), name=TOUR, progress=Progress())
    elif (
        not (saved := list_checkpoints(folder))
        or saved[-1].step < run_facts(folder)["plan"]["steps"]
    ):
        start = partial(pretrain.resume, TOUR, progress=Progress())
    else:
        return TOUR
    try:
        start()
    except Interrupted as stopped:
        leave(str(stopped), stopped.status)
    return TOUR


def has_color() -> bool:
    """Whether the output is a terminal's that wants colors."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ
