"""The model card: what a model is, what it read, how good it is and where it ends, as README.md.

Everything in it stands in the run's own files; nothing is computed anew and nothing is made up.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nextword.base.errors import RunError
from nextword.explanation.benchmarks import Benchmark, read_benchmarks
from nextword.explanation.ruler import Mark
from nextword.export.gguf_vocabulary import is_known
from nextword.export.uses import uses
from nextword.model.config import read_config
from nextword.prediction.loading import find_model_folder, objective_in, run_facts
from nextword.rendering.benchmarks import HEADS, rows_of
from nextword.rendering.curve import Line, chart_svg, standalone
from nextword.rendering.formatting import among, counted, escape, figure
from nextword.rendering.progress import duration
from nextword.training.journal import Journal
from nextword.vocabulary.tokenizer import Vocabulary

CARD, CURVE = "README.md", "curve.svg"
CURVE_POINTS = 400
PIPELINES = {
    "causal": "text-generation",
    "answer": "text-generation",
    "preference": "text-generation",
    "masked": "fill-mask",
    "labelled": "text-classification",
}
"""What each objective's models are for, in the Hub's words."""
_LINES = ("guess", "count", "pack", "floor")


@dataclass(frozen=True)
class Card:
    """What a card tells of a model."""

    name: str
    repository: str
    objective: str
    architecture: str
    facts: Mapping[str, Any]
    """As the run wrote them down; empty where a folder belongs to no run."""
    settings: str
    """The run's recipe, as TOML."""
    step: int | None
    curve: tuple[tuple[int, float], ...]
    evaluations: tuple[Mapping[str, Any], ...]
    seconds: float
    ruler: Mapping[str, Any]
    floor: Mapping[str, Any]
    benchmarks: tuple[Benchmark, ...] = ()
    in_gguf: bool = False
    """Whether llama.cpp divides a text as its vocabulary does."""
    license: str = ""
    watts: float | None = None
    limits: tuple[str, ...] = field(default=())

    @property
    def scores(self) -> Mapping[str, Any]:
        """Of the last evaluation by the step of the weights."""
        return self.evaluations[-1] if self.evaluations else {}


def read_card(
    target: str, repository: str, *, license_: str = "", watts: float | None = None
) -> Card:
    """Gather what is known of a model.

    Args:
        target: a run, RUN@500 or a model folder.
        repository: OWNER/NAME under which it will be found.
        license_: of the weights, by the Hub's identifiers; "" says nothing of it.
        watts: that the machine drew, for the energy.

    Raises:
        NextwordError: there is no such model, or its files are damaged.
    """
    folder, run, step = find_model_folder(target)
    facts = run_facts(run) if run else {}
    objective = objective_in(folder, run).name
    curve, evaluations, seconds = (), (), 0.0  # type: tuple[tuple[int, float], ...], Any, float
    ruler: Mapping[str, Any] = {}
    floor: Mapping[str, Any] = {}
    settings, benchmarks = "", []
    if run is not None:
        last = math.inf if step is None else step
        curve, evaluations, seconds = _learned(run, last)
        # They are of the run's end; an earlier checkpoint was not measured so.
        ruler, floor = (_event(run, kind, step) for kind in ("ruler", "floor"))
        settings = _text(run / "settings.toml")
        benchmarks = [one for one in read_benchmarks(run) if one.step == step]
    return Card(
        (run or folder).name, repository, objective, read_config(folder).architecture, facts,
        settings, step, curve, evaluations, seconds, ruler, floor, tuple(benchmarks),
        is_known(Vocabulary.load(folder)), license_, watts,
    )  # fmt: skip


def _learned(run: Path, last: float) -> tuple[tuple[tuple[int, float], ...], Any, float]:
    journal = Journal(run)
    steps, losses, seconds = journal.curve(last)
    points = list(zip(steps, losses, strict=True))
    thin = points[:: max(1, len(points) // CURVE_POINTS)]
    found = {one["step"]: one for one in journal.read("evaluation") if one["step"] <= last}
    return tuple(thin), tuple(found[step] for step in sorted(found)), seconds


def _event(run: Path, kind: str, step: int | None) -> Mapping[str, Any]:
    return next((one for one in Journal(run).latest(kind) if one["step"] == step), {})


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeError):
        raise RunError(f"{file}: cannot be read") from None


def card_text(card: Card) -> str:
    """Write the card as Markdown, after a head in YAML that the Hub reads."""
    how = uses(PIPELINES[card.objective], card.repository, in_gguf=card.in_gguf)
    parts = [
        f"---\n{_head(card)}---\n",
        f"# {card.name}\n",
        _lead(card),
        *(_quality(card) if card.facts else ()),
        f"## Use\n\n{how}",
        "## Limits\n\n" + _limits(card),
        *(_making(card) if card.facts else ()),
    ]
    return "\n".join(part.rstrip() + "\n" for part in parts)


def _head(card: Card) -> str:
    """Return YAML; what JSON writes YAML reads."""
    told: dict[str, Any] = {"library_name": "transformers"}
    told["pipeline_tag"] = PIPELINES[card.objective]
    told["tags"] = ["nextword", card.objective]
    if card.license:
        told["license"] = card.license
    hub = card.facts.get("hub") or {}
    for key, kind in (("base_model", "models"), ("datasets", "datasets")):
        if names := list(hub.get(kind) or ()):
            told[key] = names
    if metrics := list(_metrics(card)):
        corpus = str((card.facts.get("corpus") or {}).get("corpus") or "examples")
        result = {
            "task": {"type": PIPELINES[card.objective]},
            "dataset": {"type": "held-out", "name": f"held-out part of {corpus}"},
            "metrics": [{"type": name, "value": value} for name, value in metrics],
        }
        told["model-index"] = [
            {"name": card.name, "results": [result, *map(_result, card.benchmarks)]}
        ]
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in told.items())


def _result(one: Benchmark) -> dict[str, Any]:
    metrics = [{"type": name, "value": value} for name, value in one.metrics.items()]
    return {
        "task": {"type": "text-generation"},
        "dataset": {"type": one.task, "name": one.task},
        "metrics": metrics,
    }


def _metrics(card: Card) -> Iterator[tuple[str, float]]:
    for name in ("nats_per_token", "perplexity", "bits_per_byte", "accuracy", "macro_f1"):
        value = card.scores.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield name, value


def _lead(card: Card) -> str:
    facts = card.facts
    if not facts:
        return f"A model in the layout {card.architecture}, handed on by nextword."
    plan, corpus = facts["plan"], facts.get("corpus") or {}
    size = f" of {facts['parameters']:,} weights ({card.architecture})"
    steps = f"{counted(card.step or 0, 'step')} of {plan['rows'] * plan['context']:,} tokens"
    if not corpus:
        return f"A network{size} that learned from examples in {counted(card.step or 0, 'step')}."
    read = _plain(f"{corpus['corpus']}: {counted(corpus['documents'], 'document')}")
    amount = f", {corpus['bytes']:,} bytes" if corpus.get("bytes") else ""
    return (
        f"A network{size} that learned from {read}{amount}, {corpus['train_tokens']:,} tokens to "
        f"learn from and {corpus['holdout_tokens']:,} held out, in {steps}. "
        f"Nobody labeled anything: the text itself holds every answer."
    )


def _quality(card: Card) -> Iterator[str]:
    scores = card.scores
    if not scores:
        return
    rows = [f"| {name.replace('_', ' ')} | {figure(value)} |" for name, value in _metrics(card)]
    yield "## How good it is\n\nOn text that it never saw:\n\n| | |\n|---|---|\n" + "\n".join(rows)
    if isinstance(scores.get("perplexity"), float):
        yield f"It is {among(scores['perplexity'])}."
    if marks := _marks(card.ruler):
        unit = str(card.ruler.get("unit"))
        lines = [
            f"| {_plain(mark.name)} | {value:.4f} | {_plain(mark.says)} |" for mark, value in marks
        ]
        yield (
            f"The same held-out text written down by others, in {unit}; less is better:\n\n"
            "| | | |\n|---|---|---|\n" + "\n".join(lines)
        )
    if isinstance(card.floor.get("share"), float):
        yield (
            f"The lowest loss that any model can reach on this text is known exactly: "
            f"{card.floor['nats_per_token']:.4f} nats a token. This one is "
            f"{card.floor['share']:.1%} above it."
        )
    if card.benchmarks:
        rows = [f"| {' | '.join(map(_plain, row))} |" for row in rows_of(card.benchmarks)]
        yield (
            f"Asked by {_plain(card.benchmarks[0].harness)}:\n\n| {' | '.join(HEADS)} |\n"
            f"|{'---|' * len(HEADS)}\n" + "\n".join(rows)
        )
    if len(card.curve) > 1:
        yield f"![The loss over the steps of training]({CURVE})"


def _marks(ruler: Mapping[str, Any]) -> list[tuple[Mark, float]]:
    found = []
    for mark in ruler.get("marks") or ():
        known = {key: mark.get(key) for key in ("name", "kind", "bits", "says")}
        if isinstance(mark.get("value"), float) and all(v is not None for v in known.values()):
            found.append((Mark(**known), mark["value"]))
    return sorted(found, key=lambda one: -one[1])


def curve_svg(card: Card) -> str | None:
    """Draw the loss over the steps, in nats a token, as a picture of its own; None of one step."""
    if len(card.curve) < 2:
        return None
    held = [(one["step"], one.get("nats_per_token")) for one in card.evaluations]
    marks = [(float(step), loss) for step, loss in held if isinstance(loss, float)]
    tokens = card.ruler.get("tokens") or 0
    rules = [
        (mark.name, mark.bits * math.log(2) / tokens)
        for mark, _ in (_marks(card.ruler) if tokens else ())
        if mark.kind in _LINES
    ]
    points = tuple((float(step), loss) for step, loss in card.curve)
    drawn = chart_svg(
        [Line("training text", points)],
        title="The loss over the steps of training",
        across="steps of training (each doubling has the same room)",
        up="loss, nats",
        rules=rules,
        marks=marks,
        log_across=True,
    )
    return standalone(drawn)


def _limits(card: Card) -> str:
    shape = card.facts.get("shape") or {}
    lines = []
    if shape.get("context"):
        lines.append(f"It reads {shape['context']:,} tokens at once; what stands before is lost.")
    if card.facts:
        lines += [
            "It knows what stood in its text and nothing else; it was not taught to be true, kind "
            "or safe, and it may repeat passages of its text.",
            "The figures are of a held-out part of the same source; they say nothing about "
            "other text.",
        ]
    else:
        lines.append("What it read and how it was judged is not known to who wrote this card.")
    return "\n".join(f"- {line}" for line in lines)


def _making(card: Card) -> Iterator[str]:
    facts, plan = card.facts, card.facts["plan"]
    machine, versions = facts["hardware"], facts["versions"]
    tokens = (card.step or 0) * plan["rows"] * plan["context"]
    lines = [
        f"{duration(card.seconds)} on {machine['name']}, {counted(machine['threads'], 'thread')}, "
        f"{machine['precision']}; about {facts['flops_per_token'] * tokens:.2e} operations.",
        _energy(card),
        f"nextword {versions['nextword']}, torch {versions['torch']}, begun {facts['started']}.",
    ]
    for names in (facts.get("hub") or {}).values():
        told = ", ".join(f"{name} at {commit}" for name, commit in names.items())
        lines.append(f"From the Hub: {_plain(told)}.")
    made = "\n".join(f"- {line}" for line in lines)
    yield f"## How it was made\n\n{made}"
    if card.settings:
        # A path of the maker's machine is nobody's business.
        recipe = re.sub(r"(?m)^source = .*$", "# source was a file of the maker's", card.settings)
        fence = "`" * max(3, _longest_run(recipe) + 1)
        yield (
            "<details><summary>The recipe, for <code>nextword train --recipe</code></summary>\n\n"
            f"{fence}toml\n{recipe}\n{fence}\n\n</details>"
        )


def _energy(card: Card) -> str:
    if card.watts is None:
        return "Energy was not measured: that time, times what the machine draws."
    return (
        f"About {card.watts * card.seconds / 3.6e6:.3g} kWh, at {card.watts:g} W as its maker says."
    )


def _longest_run(text: str) -> int:
    """Return how many backticks stand side by side at most."""
    return max(map(len, re.findall("`+", text)), default=0)


def _plain(text: str) -> str:
    """Keep a text from being read as Markdown or HTML."""
    found = escape(" ".join(text.split()))
    return "".join(f"\\{sign}" if sign in "|*_`[]\\" else sign for sign in found)


def card_files(card: Card) -> Sequence[tuple[str, str]]:
    """Return the card's files by name: itself, and its picture where there is one."""
    picture = curve_svg(card)
    return [(CARD, card_text(card)), *([(CURVE, picture)] if picture else [])]
