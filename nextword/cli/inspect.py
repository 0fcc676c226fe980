"""Command line: targets, vocabulary, runs, settings, and the versions of all that computes."""

import json
import sys
import time
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from nextword import __version__
from nextword.base.errors import SettingsError
from nextword.base.terminal import signed
from nextword.cli.program import (
    INSPECT,
    OPTIONS,
    AsJson,
    Paths,
    Run,
    app,
    named,
    say,
    takes,
    text_of,
    write,
)


@app.command(name="--version", group=OPTIONS)
def version(
    *,
    verbose: Annotated[
        bool,
        Parameter(
            negative=(),
            help="and all that a report of a mistake needs: versions, devices, precision, cores",
        ),
    ] = False,
    json_: AsJson = False,
) -> None:
    """Say the program's version."""
    if not verbose:
        write(json.dumps({"nextword": __version__}) if json_ else __version__)
        return
    from nextword.machine.about import about, describe_about

    facts = about()
    write(json.dumps(facts) if json_ else describe_about(facts))


@app.command(group=INSPECT)
def targets(
    text: str,
    *,
    run: Annotated[
        str | None, Parameter(help="whose vocabulary to use (default: whole words)")
    ] = None,
    json_: AsJson = False,
) -> None:
    """Show the lessons that a text gives itself.

    Each context, and the target that comes next.
    """
    pieces = _pieces_of(text_of(text), run)
    rows = [("".join(pieces[:place]), pieces[place]) for place in range(1, len(pieces))]
    if json_:
        write(
            json.dumps(
                {"lessons": [{"context": context, "target": target} for context, target in rows]}
            )
        )
    else:
        write("\n".join(f'"{context}" → "{target}"' for context, target in rows))


def _pieces_of(text: str, run: str | None) -> list[str]:
    if run is None:
        import re

        return re.findall(r"\s*\w+|\s*[^\w\s]", text)
    from nextword.prediction.loading import find_model_folder
    from nextword.vocabulary.tokenizer import Vocabulary

    vocabulary = Vocabulary.load(find_model_folder(run)[0])
    return [vocabulary.piece(id_) for id_ in vocabulary.encode(text)]


vocabulary_app = App(
    group=INSPECT,
    name="vocabulary",
    help="Show a text's pieces and ids, or compare vocabularies.",
)
app.command(vocabulary_app)


@vocabulary_app.default
def vocabulary(
    run: Run,
    text: str | None = None,
    *,
    id_: Annotated[int | None, Parameter(name="--id", help="say what this id stands for")] = None,
    json_: AsJson = False,
) -> None:
    """Show a text's pieces, their ids and the bytes a token, or what one id stands for."""
    from nextword.base.errors import VocabularyError
    from nextword.prediction.loading import find_model_folder
    from nextword.vocabulary.scripts import bytes_per_token_by_script
    from nextword.vocabulary.tokenizer import Vocabulary

    known = Vocabulary.load(find_model_folder(run)[0])
    if id_ is not None:
        piece, raw = known.piece(id_), known.piece_bytes(id_)
        if json_:
            write(json.dumps({"id": id_, "piece": piece, "bytes": list(raw)}))
        else:
            write(f"{id_} stands for {_shown(piece, raw)}")
        return
    if text is None:
        values = {
            "kind": known.kind,
            "entries": len(known),
            "vocab_size": len(known),
            "end_of_text": known.end_id,
        }
        write(
            json.dumps(values)
            if json_
            else f"{known.kind}, {len(known):,} entries; end of text is {known.end_id}"
        )
        return
    text = text_of(text)
    if not text:
        raise VocabularyError("the text is empty; give one to take apart")
    ids = known.encode(text)
    rows = [{"id": id_, "piece": known.piece(id_)} for id_ in ids]
    shown = [(id_, _shown(known.piece(id_), known.piece_bytes(id_))) for id_ in ids]
    ratio = len(text.encode()) / len(ids)
    scripts = bytes_per_token_by_script(known, text)
    unknown = sum(id_ == known.unknown_id for id_ in ids)
    if json_:
        values = {"pieces": rows, "bytes_per_token": ratio, "by_script": scripts}
        write(json.dumps({**values, "unknown": unknown}))
        return
    write("\n".join(f"{id_:>7}  {piece}" for id_, piece in shown))
    write(f"{len(ids)} tokens, {ratio:.2f} bytes a token")
    if len(scripts) > 1:
        write(", ".join(f"{script}: {value:.2f}" for script, value in scripts.items()))
    if unknown:
        write(f"{unknown} of them stand for what this vocabulary does not hold")


@vocabulary_app.command
@takes(("corpus", "vocabulary"))
def compare(
    *paths: Paths,
    kinds: Annotated[
        str, Parameter(help="kinds to compare, with commas between (default: all)")
    ] = "",
    sizes: Annotated[
        str,
        Parameter(help="entries, with commas between (default: half, once and twice the usual)"),
    ] = "",
    sentence: Annotated[
        str, Parameter(help="shown in pieces")
    ] = "We are all humans born to make mistakes",
    depth: Annotated[int, Parameter(help="of the model whose embedding's share is told")] = 4,
    json_: AsJson = False,
    **options: Any,
) -> None:
    """Put kinds and sizes of vocabulary side by side on a text, to choose by.

    Each is learned from the text's training part and measured on the rest.
    """
    from dataclasses import asdict

    from nextword.corpus.open import open_corpus
    from nextword.model.shape import ModelSettings, resolve_shape
    from nextword.rendering.predictions import describe_comparison
    from nextword.settings import resolve
    from nextword.vocabulary.compare import compare as put_side_by_side
    from nextword.vocabulary.training_data import check_paths

    paths, settings = named(paths), resolve(given=options)
    check_paths(paths)
    rows: list[dict[str, Any]] = []
    for found in put_side_by_side(
        open_corpus(paths, settings.corpus),
        settings.vocabulary,
        _listed(kinds),
        [_number(size) for size in _listed(sizes)],
        sentence,
    ):
        shape = resolve_shape(ModelSettings(depth=depth), found.entries, 256)
        share = found.entries * shape.hidden_size / shape.parameters()
        rows.append({**asdict(found), "embedding_share": share})
    if json_:
        write(json.dumps({"sentence": sentence, "depth": depth, "vocabularies": rows}))
    else:
        write(describe_comparison(rows, sentence, depth))


def _shown(piece: str, raw: bytes) -> str:
    """Quote a piece; part of a character is told by its bytes, a line break by a sign."""
    if "\ufffd" in piece:
        return f"bytes {raw.hex(' ')}, part of a character"
    return f'"{signed(piece)}"'


def _listed(words: str) -> list[str]:
    return [word.strip() for word in words.split(",") if word.strip()]


def _number(word: str) -> int:
    from nextword.base.errors import SettingsError

    if not word.isdigit():
        raise SettingsError(f"--sizes {word!r}: expected whole numbers with commas between")
    return int(word)


@app.command(group=INSPECT)
@takes(("corpus",))
def look(
    *paths: Paths,
    samples: Annotated[int, Parameter(help="documents whose beginning is shown")] = 3,
    json_: AsJson = False,
    **options: Any,
) -> None:
    """Read a text as training would, and show what was read.

    What was left out is counted, and it is shown how the text begins.
    """
    from nextword.explanation.look import look as look_at
    from nextword.rendering.look import describe_look
    from nextword.settings import resolve
    from nextword.vocabulary.training_data import check_paths

    paths, settings = named(paths), resolve(given=options)
    check_paths(paths)
    if not paths:
        raise SettingsError("name a text to look at: files, folders or globs")
    found = look_at(paths, settings.corpus, max(samples, 0))
    if json_:
        write(json.dumps(found.as_dict()))
    else:
        write(describe_look(found, list(paths), redacted=settings.corpus.redact))


@app.command(group=INSPECT)
def runs(*, json_: AsJson = False) -> None:
    """List the runs with size, steps, loss and age."""
    from nextword.base.errors import RunError
    from nextword.prediction.loading import FACTS, list_runs, run_facts, runs_folder
    from nextword.rendering.predictions import describe_runs
    from nextword.rendering.progress import duration
    from nextword.training.checkpoint import best_of, list_checkpoints

    rows = []
    for run in list_runs():
        try:
            parameters = run_facts(run)["parameters"]
        except (RunError, KeyError) as error:  # one damaged run hides no other
            say(f"nextword: {run / FACTS}: damaged ({error})")
            parameters = None
        saved, age = list_checkpoints(run), time.time() - (run / FACTS).stat().st_mtime
        rows.append(
            {
                "name": run.name,
                "parameters": parameters,
                "steps": saved[-1].step if saved else 0,
                "loss": best_of(saved).holdout_loss if saved else None,
                "age": duration(age),
            }
        )
    if json_:
        write(json.dumps({"runs": rows}))
    else:
        write(
            describe_runs(rows)
            if rows
            else f"no run in {runs_folder()} yet; `nextword train` makes one"
        )


@app.command(group=INSPECT)
def check(
    run: Run,
    *,
    for_: Annotated[
        Literal["vllm"] | None,
        Parameter(name="--for", help="look up instead whether this program would serve the folder"),
    ] = None,
    json_: AsJson = False,
) -> None:
    """Compute a run's numbers again in other ways.

    Leave with status 1 if two of them do not agree.
    """
    from nextword import language_model
    from nextword.rendering.checks import describe_check, describe_verdict

    model = language_model.load(run)
    if for_ is None:
        checks = model.checks()
    else:
        from nextword.export.vllm import how_to_serve, vllm_checks

        checks = vllm_checks(model.opened)
    found = []
    for one in checks:
        found.append(one)
        if not json_:
            write(describe_check(one))
    passed = all(one.passed for one in found)
    if json_:
        write(json.dumps({"passed": passed, "checks": [one.as_dict() for one in found]}))
    else:
        write(describe_verdict(found))
        if for_ is not None and passed:
            write(how_to_serve(model.opened))
    if not passed:
        sys.exit(1)


@app.command(group=INSPECT)
def settings(*names: str, json_: AsJson = False) -> None:
    """Say what every option does, and where its default comes from.

    Of the groups or options that are named, as training or model.depth; else of all.
    """
    from nextword.base.errors import SettingsError
    from nextword.base.options import nearest
    from nextword.rendering.settings import describe_settings, source_of
    from nextword.settings import all_options

    options = list(all_options())
    known = {option.room for option in options} | {option.path for option in options}
    wanted = [name.removeprefix("--").replace("-", "_") for name in names]
    for name in wanted:
        if name not in known:
            raise SettingsError(f"no group or option {name!r}.{nearest(name, known)}")
    chosen = [one for one in options if not wanted or {one.room, one.path} & {*wanted}]
    if json_:
        rows = [
            {
                "option": one.path,
                "help": one.help,
                "default": one.default,
                "rule": one.rule or None,
                "derived_from": list(one.of),
                "source": source_of(one),
                "unit": one.unit or None,
                "choices": list(one.choices),
            }
            for one in chosen
        ]
        write(json.dumps({"settings": rows}))
    else:
        write(describe_settings(chosen))
