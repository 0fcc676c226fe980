"""Verbs that ask a model: generate, predict, evaluate."""

import json
from typing import Annotated, Any

from cyclopts import Parameter

from nextword.cli.program import AsJson, Paths, Run, app, named, takes, text_of, write


@app.command
@takes(("generation",), prefix=False)
def generate(
    run: Run,
    prompt: str = "",
    *,
    stop: Annotated[
        tuple[str, ...],
        Parameter(help="end the text before this string; may be repeated", negative=()),
    ] = (),
    show: Annotated[
        bool, Parameter(negative=(), help="show logit → probability → id → piece of each word")
    ] = False,
    json_: AsJson = False,
    **options: Any,
) -> None:
    """Write text, one token at a time, from a run, a checkpoint (RUN@500) or any model folder."""
    from nextword.settings import resolve

    settings = resolve(given=options).generation
    from nextword import api
    from nextword.explanation.render.asking import describe_choice
    from nextword.prediction.generate import generate as written

    prompt, opened = text_of(prompt), api.load(run).opened
    texts = []
    for sample in range(settings.samples):
        text = ""
        if sample and not json_:
            write("\n" + "─" * 20)
        if not show and not json_:
            write(prompt, end="")
        for chosen in written(
            opened.model, opened.vocabulary, prompt, settings, sample=sample, stop=stop
        ):
            text += chosen.text
            if show and not json_:
                probability = float(chosen.logits.cpu().double().softmax(0)[chosen.id])
                write(
                    describe_choice(
                        chosen.text, chosen.id, float(chosen.logits[chosen.id]), probability
                    )
                )
            elif not json_:
                write(chosen.text, end="")
        if not show and not json_:
            write("")
        texts.append(text)
    if json_:
        write(json.dumps({"prompt": prompt, "texts": texts}))


@app.command
def predict(
    run: Run,
    prompt: str = "",
    *,
    top: Annotated[int, Parameter(help="candidates to list")] = 10,
    json_: AsJson = False,
) -> None:
    """List what may come next after a text: logit, probability, id and piece of each candidate."""
    from nextword import api
    from nextword.explanation.render.asking import describe_prediction

    prediction = api.load(run).predict(text_of(prompt), max(top, 1))
    write(json.dumps(prediction.as_dict()) if json_ else describe_prediction(prediction))


@app.command
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
    json_: AsJson = False,
    **options: Any,
) -> None:
    """Score a text; without a path, the run's own hold-out.

    Every token counts, at full precision.
    """
    from nextword.corpus.documents import find_files
    from nextword.settings import resolve

    settings = resolve(given={**options, "corpus.field": field, "corpus.format": format_})
    paths = named(paths)
    find_files(paths)
    from dataclasses import asdict

    from nextword import api
    from nextword.explanation.render.asking import describe_full_evaluation

    model = api.load(run)
    scores = model.evaluate(*paths, corpus=settings.corpus, **asdict(settings.evaluation))
    floor = None if paths else model.floor(scores)
    if json_:
        known = {} if floor is None else {"floor_nats_per_token": floor.nats_per_token}
        write(json.dumps({**scores.as_dict(), **known}))
    else:
        write(describe_full_evaluation(scores, ", ".join(paths) or "the run's own hold-out", floor))
