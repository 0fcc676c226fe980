"""Command line: inference - generate, predict, fill, classify, evaluate, benchmark."""

import json
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from nextword.cli.program import PREDICT, AsJson, Paths, Run, app, named, say, takes, text_of, write


@app.command(group=PREDICT)
@takes(("generation",), prefix=False)
def generate(
    run: Run,
    prompt: str = "",
    *,
    stop: Annotated[
        tuple[str, ...],
        Parameter(
            help="end the text before this string; may be repeated",
            negative=(),
            show_default=False,
        ),
    ] = (),
    show: Annotated[
        bool, Parameter(negative=(), help="show logit → probability → id → piece of each word")
    ] = False,
    json_: AsJson = False,
    **options: Any,
) -> None:
    """Write text, one token at a time.

    From a run, a checkpoint (RUN@500) or any model folder.
    """
    from nextword.settings import resolve

    settings = resolve(given=options).generation
    from nextword import language_model
    from nextword.prediction.generate import Chosen, generate_several, in_order
    from nextword.rendering.predictions import describe_choice

    prompt, opened = text_of(prompt), language_model.load(run).opened
    opened.refuse("generate")
    written = generate_several(opened.model, opened.vocabulary, prompt, settings, stop=stop)
    if json_:
        texts = [""] * settings.samples
        for sample, chosen in written:
            texts[sample] += "" if chosen is None else chosen.text
        write(json.dumps({"prompt": prompt, "texts": texts}))
        return

    def as_shown(chosen: Chosen | None) -> str | None:
        if chosen is None or not show:
            return None if chosen is None else chosen.text
        probability = float(chosen.logits.cpu().double().softmax(0)[chosen.id])
        logit = float(chosen.logits[chosen.id])
        return describe_choice(chosen.text, chosen.id, logit, probability) + "\n"

    beginning, end = ("", "") if show else (prompt, "\n")
    write(beginning, end="")
    pieces = ((sample, as_shown(chosen)) for sample, chosen in written)
    for sample, piece in in_order(pieces, settings.samples):
        write(end if piece is None else piece, end="")
        if piece is None and sample + 1 < settings.samples:
            write("\n" + "─" * 20 + "\n" + beginning, end="")


@app.command(group=PREDICT)
def predict(
    run: Run,
    prompt: str = "",
    *,
    top: Annotated[int, Parameter(help="candidates to list")] = 10,
    json_: AsJson = False,
) -> None:
    """List what may come next after a text, and how likely it is.

    Each candidate has its logit, probability, id and piece.
    """
    from nextword import language_model
    from nextword.rendering.predictions import describe_prediction

    prediction = language_model.load(run).predict(text_of(prompt), max(top, 1))
    write(json.dumps(prediction.as_dict()) if json_ else describe_prediction(prediction))


@app.command(group=PREDICT)
def fill(
    run: Run,
    text: Annotated[str, Parameter(help='the text, [MASK] where something is hidden, or "-"')],
    *,
    top: Annotated[int, Parameter(help="candidates to list at each place")] = 10,
    json_: AsJson = False,
) -> None:
    """List what may stand at a hidden place of a text.

    By a model that was trained to name hidden tokens.
    """
    from nextword import language_model
    from nextword.rendering.predictions import describe_filled

    places = language_model.load(run).fill(text_of(text), max(top, 1))
    if json_:
        write(json.dumps({"places": [place.as_dict() for place in places]}))
    else:
        write("\n\n".join(map(describe_filled, places)))


@app.command(group=PREDICT)
def classify(
    run: Run,
    text: Annotated[str, Parameter(help='the text, or "-" for standard input')],
    *,
    json_: AsJson = False,
) -> None:
    """Label a text by a model that was finetuned on labels."""
    from nextword import language_model
    from nextword.rendering.finetuned import describe_said

    said = language_model.load(run).classify(text_of(text))[0]
    write(json.dumps(said.as_dict()) if json_ else describe_said(said))


@app.command(group=PREDICT)
@takes(("evaluation",), prefix=False)
def evaluate(
    run: Run,
    *paths: Paths,
    field: Annotated[
        str,
        Parameter(
            name=["--field", "--corpus.field"], help="the field or column that holds the text"
        ),
    ] = "text",
    format_: Annotated[
        str,
        Parameter(
            name=["--format", "--corpus.format"],
            help="how to read files (default: by the name's ending)",
        ),
    ] = "auto",
    separator: Annotated[
        str,
        Parameter(
            name=["--separator", "--corpus.separator"],
            help="what parts the documents of a text file, as for train (default: auto)",
        ),
    ] = "auto",
    errors: Annotated[
        str,
        Parameter(
            name=["--errors", "--corpus.errors"],
            help="strict, or replace to put U+FFFD for bytes that are not UTF-8",
        ),
    ] = "strict",
    pseudo: Annotated[
        bool,
        Parameter(negative=(), help="of a masked model: hide every token in turn, add the logs up"),
    ] = False,
    json_: AsJson = False,
    **options: Any,
) -> None:
    """Score a text; without a path, the run's own hold-out.

    Every token counts, at full precision.
    """
    from nextword.corpus.documents import find_files
    from nextword.settings import resolve

    read = {"field": field, "format": format_, "separator": separator, "errors": errors}
    settings = resolve(given={**options, **{f"corpus.{key}": one for key, one in read.items()}})
    paths = named(paths)
    find_files(paths)
    from dataclasses import asdict

    from nextword import language_model
    from nextword.rendering.predictions import describe_full_evaluation, describe_pseudo

    model = language_model.load(run)
    if pseudo:
        measured = model.pseudo(*paths, corpus=settings.corpus)
        values = measured.as_dict()
        write(json.dumps(values) if json_ else describe_pseudo(measured, ", ".join(paths)))
        return
    scores = model.evaluate(*paths, corpus=settings.corpus, **asdict(settings.evaluation))
    floor = None if paths else model.floor(scores)
    if json_:
        known = {} if floor is None else {"floor_nats_per_token": floor.nats_per_token}
        write(json.dumps({**scores.as_dict(), **known}))
    else:
        write(describe_full_evaluation(scores, ", ".join(paths) or "the run's own hold-out", floor))


@app.command(group=PREDICT)
def benchmark(
    run: Run = "latest",
    *,
    tasks: Annotated[
        str,
        Parameter(
            help="names with commas between: lm-evaluation-harness' own, nextword_holdout, "
            "nextword_stories, nextword_python"
        ),
    ] = "nextword_holdout",
    limit: Annotated[int | None, Parameter(help="documents of each task at most")] = None,
    fewshot: Annotated[
        int | None, Parameter(help="examples before a question [default: the task's own]")
    ] = None,
    batch: Annotated[int, Parameter(help="rows asked at once")] = 8,
    include: Annotated[Path | None, Parameter(help="folder of more tasks, in YAML")] = None,
    json_: AsJson = False,
) -> None:
    """Ask lm-evaluation-harness' tasks of a model.

    Their texts are looked for in what it has read. The figures are kept with the run, for its
    report and its card.
    """
    import msgspec

    from nextword import language_model
    from nextword.base.errors import SettingsError
    from nextword.evals.harness import run_tasks
    from nextword.explanation.benchmarks import keep_benchmarks
    from nextword.rendering.benchmarks import describe_benchmarks

    for name, value in (("limit", limit), ("batch", batch)):
        if value is not None and value < 1:
            raise SettingsError(f"--{name} {value}: at least 1")
    if fewshot is not None and fewshot < 0:
        raise SettingsError(f"--fewshot {fewshot}: at least 0")
    asked = [task.strip() for task in tasks.split(",") if task.strip()]
    if not asked:
        raise SettingsError("--tasks names none")
    if include is not None and not include.is_dir():
        raise SettingsError(f"{include}: no such folder")
    opened = language_model.load(run).opened
    found = run_tasks(
        opened, asked, limit=limit, fewshot=fewshot, batch=batch, include=include, say=say
    )
    if opened.run is not None:
        keep_benchmarks(opened.run, found)
    if json_:
        write(json.dumps({"benchmarks": [msgspec.to_builtins(one) for one in found]}))
    else:
        write(describe_benchmarks(found))
