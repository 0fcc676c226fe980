"""The verbs of the command line.

Nothing heavy is imported before a verb runs, so every --help is instant.
"""

import inspect
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter

from nextword import __version__
from nextword.base.errors import NextwordError
from nextword.settings import Option, all_options

app = App(
    name="nextword",
    help="Train a language model to predict the next word from text, and watch it learn.",
    version=__version__,
    help_format="plaintext",
)
Run = Annotated[
    str, Parameter(help="a run's name or path, RUN@500, RUN@last, latest, or a model folder")
]
Paths = Annotated[str, Parameter(help='files, folders, globs, or "-" for standard input')]
AsJson = Annotated[
    bool, Parameter(name="--json", negative=(), help="print one JSON object instead of text")
]


_STANDARD_INPUT = "<standard input>"
"""Stands for "-" while options are read, which takes a lone dash for an option without a name."""


def main(arguments: list[str] | None = None) -> None:
    """Run one command; leave with 0, 2 (wrong input, said in one line) or 130 (interrupted)."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        app([_dashes(word) for word in given], exit_on_error=False, print_error=False)
    except (NextwordError, CycloptsError) as error:
        _leave(" ".join(str(error).split()), 2)
    except BrokenPipeError:
        sys.exit(141)
    except KeyboardInterrupt:
        _leave("interrupted", 130)


def _dashes(word: str) -> str:
    """Let options be written with dashes or underscores alike."""
    if word == "-":
        return _STANDARD_INPUT
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value


def _named(paths: tuple[str, ...]) -> tuple[str, ...]:
    """Give "-" back its name."""
    return tuple("-" if path == _STANDARD_INPUT else path for path in paths)


def _leave(message: str, status: int) -> None:
    print(f"nextword: {message}", file=sys.stderr)  # noqa: T201
    sys.exit(status)


def _write(text: str, *, end: str = "\n") -> None:
    sys.stdout.write(text + end)
    sys.stdout.flush()


def _takes(
    rooms: tuple[str, ...], *, prefix: bool = True
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a verb the options of settings rooms; it receives what was given as {"room.name".

    Value}.
    """

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        own = [
            p for p in inspect.signature(verb).parameters.values() if p.kind is not p.VAR_KEYWORD
        ]
        kind = inspect.Parameter.KEYWORD_ONLY
        options = {f"{option.room}__{option.name}": option for option in all_options(*rooms)}
        added = [
            inspect.Parameter(key, kind, default=None, annotation=_annotation(option, prefix))
            for key, option in options.items()
        ]

        def run(*args: Any, **kwargs: Any) -> None:
            given = {options[key].path: kwargs.pop(key) for key in list(kwargs) if key in options}
            verb(
                *args,
                **kwargs,
                **{path: value for path, value in given.items() if value is not None},
            )

        run.__name__, run.__doc__ = verb.__name__, verb.__doc__
        run.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in [*own, *added]}
        return run

    return decorate


def _annotation(option: Option, prefix: bool) -> Any:
    words = option.help
    if option.choices:
        words += f"; one of {', '.join(option.choices)}"
    if option.default is not None:
        default = (
            str(option.default).lower() if isinstance(option.default, bool) else f"{option.default}"
        )
        words += f" [default: {default}{' ' + option.unit if option.unit else ''}]"
    name = "--" + (option.path if prefix else option.name).replace("_", "-")
    negative = f"--no-{name[2:]}" if option.type is bool else ()
    return Annotated[
        option.type | None, Parameter(name=name, help=words, negative=negative, show_default=False)
    ]


@app.command
@_takes(("corpus", "vocabulary", "model", "training", "evaluation", "generation", "machine"))
def train(
    *paths: Paths,
    name: Annotated[
        str | None, Parameter(help="of the run (default: the text's name and a number)")
    ] = None,
    recipe: Annotated[
        Path | None, Parameter(help="a TOML file of options; those given here overrule it")
    ] = None,
    resume: Annotated[str | None, Parameter(help="go on with this run")] = None,
    quiet: Annotated[bool, Parameter(negative=(), help="say nothing")] = False,
    json_: AsJson = False,
    **options: Any,
) -> None:
    """Train a model on text: files, folders, globs or "-".

    Without a path, on the built-in stories.
    """
    from nextword.base.errors import SettingsError
    from nextword.settings import read_recipe, resolve

    paths = _named(paths)
    if resume is not None and (paths or name or recipe or options.keys() - {"training.steps"}):
        raise SettingsError(
            "--resume goes on with a run as it is; only --training.steps may be given with it"
        )
    settings = resolve(read_recipe(recipe) if recipe else None, options)
    if paths:
        from nextword.corpus.documents import find_files

        find_files(paths)  # a missing path is said before anything heavy is imported
    from nextword import pretrain
    from nextword.explanation.screen import Screen
    from nextword.run import Interrupted

    screen = Screen(quiet=quiet)
    try:
        if resume is not None:
            run = pretrain.resume(resume, steps=options.get("training.steps"), screen=screen)
        else:
            run = pretrain.train(paths, settings, name=name, screen=screen)
    except Interrupted as stopped:
        _leave(str(stopped), 130)
    if json_ and run.final is not None:
        _write(json.dumps({"run": str(run.folder), "seconds": run.seconds, **run.final.as_dict()}))


@app.command
@_takes(("generation",), prefix=False)
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
    from nextword.explanation.render import describe_choice
    from nextword.prediction.generate import generate as write

    opened = api.load(run).opened
    texts = []
    for sample in range(settings.samples):
        text = ""
        if sample and not json_:
            _write("\n" + "─" * 20)
        if not show and not json_:
            _write(prompt, end="")
        for chosen in write(
            opened.model, opened.vocabulary, prompt, settings, sample=sample, stop=stop
        ):
            text += chosen.text
            if show and not json_:
                probability = float(chosen.logits.double().softmax(0)[chosen.id])
                _write(
                    describe_choice(
                        chosen.text, chosen.id, float(chosen.logits[chosen.id]), probability
                    )
                )
            elif not json_:
                _write(chosen.text, end="")
        if not show and not json_:
            _write("")
        texts.append(text)
    if json_:
        _write(json.dumps({"prompt": prompt, "texts": texts}))


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
    from nextword.explanation.render import describe_prediction

    prediction = api.load(run).predict(prompt, max(top, 1))
    _write(json.dumps(prediction.as_dict()) if json_ else describe_prediction(prediction))


@app.command
@_takes(("evaluation",), prefix=False)
def evaluate(
    run: Run,
    *paths: Paths,
    field: Annotated[str, Parameter(help="of JSON lines, the one that holds the text")] = "text",
    json_: AsJson = False,
    **options: Any,
) -> None:
    """Score a text; without a path, the run's own hold-out.

    Every token counts, at full precision.
    """
    from nextword.corpus.documents import find_files
    from nextword.settings import resolve

    settings = resolve(given={**options, "corpus.field": field})
    paths = _named(paths)
    find_files(paths)
    from dataclasses import asdict

    from nextword import api
    from nextword.explanation.render import describe_full_evaluation

    model = api.load(run)
    scores = model.evaluate(*paths, corpus=settings.corpus, **asdict(settings.evaluation))
    floor = None if paths else model.floor(scores)
    if json_:
        known = {} if floor is None else {"floor_nats_per_token": floor.nats_per_token}
        _write(json.dumps({**scores.as_dict(), **known}))
    else:
        _write(
            describe_full_evaluation(scores, ", ".join(paths) or "the run's own hold-out", floor)
        )


@app.command
def targets(
    text: str,
    *,
    run: Annotated[
        str | None, Parameter(help="whose vocabulary to use (default: whole words)")
    ] = None,
    json_: AsJson = False,
) -> None:
    """Show the lessons a text gives itself: every context → the target that comes next."""
    pieces = _pieces_of(text, run)
    rows = [("".join(pieces[:place]), pieces[place]) for place in range(1, len(pieces))]
    if json_:
        _write(
            json.dumps(
                {"lessons": [{"context": context, "target": target} for context, target in rows]}
            )
        )
    else:
        _write("\n".join(f'"{context}" → "{target}"' for context, target in rows))


def _pieces_of(text: str, run: str | None) -> list[str]:
    if run is None:
        import re

        return re.findall(r"\s*\w+|\s*[^\w\s]", text)
    from nextword.prediction.open import find_model_folder
    from nextword.vocabulary.tokenizer import Vocabulary

    vocabulary = Vocabulary.load(find_model_folder(run)[0])
    return [vocabulary.piece(id_) for id_ in vocabulary.encode(text)]


@app.command
def vocabulary(
    run: Run,
    text: str | None = None,
    *,
    id_: Annotated[int | None, Parameter(name="--id", help="say what this id stands for")] = None,
    json_: AsJson = False,
) -> None:
    """Show a text's pieces, their ids and the bytes a token, or what one id stands for."""
    from nextword.base.errors import VocabularyError
    from nextword.prediction.open import find_model_folder
    from nextword.vocabulary.tokenizer import Vocabulary

    known = Vocabulary.load(find_model_folder(run)[0])
    if id_ is not None:
        piece, raw = known.piece(id_), known.piece_bytes(id_)
        if json_:
            _write(json.dumps({"id": id_, "piece": piece, "bytes": list(raw)}))
        elif "\ufffd" in piece:
            _write(f"{id_} stands for the bytes {raw.hex(' ')}, part of a character")
        else:
            _write(f'{id_} stands for "{piece}"')
        return
    if text is None:
        values = {"kind": known.kind, "entries": len(known), "end_of_text": known.end_id}
        _write(
            json.dumps(values)
            if json_
            else f"{known.kind}, {len(known):,} entries; end of text is {known.end_id}"
        )
        return
    if not text:
        raise VocabularyError("the text is empty; give one to take apart")
    ids = known.encode(text)
    rows = [{"id": id_, "piece": known.piece(id_)} for id_ in ids]
    ratio = len(text.encode()) / len(ids)
    if json_:
        _write(json.dumps({"pieces": rows, "bytes_per_token": ratio}))
        return
    _write("\n".join(f'{row["id"]:>7}  "{row["piece"]}"' for row in rows))
    _write(f"{len(ids)} tokens, {ratio:.2f} bytes a token")


@app.command
def runs(*, json_: AsJson = False) -> None:
    """List the runs with size, steps, loss and age."""
    from nextword.explanation.render import describe_runs
    from nextword.explanation.screen import duration
    from nextword.prediction.open import FACTS, list_runs, run_facts, runs_folder
    from nextword.training.checkpoint import best_of, list_checkpoints

    rows = []
    for run in list_runs():
        facts, saved = run_facts(run), list_checkpoints(run)
        age = time.time() - (run / FACTS).stat().st_mtime
        rows.append(
            {
                "name": run.name,
                "parameters": facts["parameters"],
                "steps": saved[-1].step if saved else 0,
                "loss": best_of(saved).holdout_loss if saved else None,
                "age": duration(age),
            }
        )
    if json_:
        _write(json.dumps({"runs": rows}))
    else:
        _write(
            describe_runs(rows)
            if rows
            else f"no run in {runs_folder()} yet; `nextword train` makes one"
        )
