"""Plain words for a model that learned from examples: how right it is, what it says of a text."""

from pathlib import Path

from nextword.explanation.render.words import argument, chance, table
from nextword.prediction.answers import AnswerScores
from nextword.prediction.labels import ClassScores, NumberScores, Said, Scores

BAR = 24
SHOWN_CLASSES = 12


def describe_taught(
    run: Path, task: str, scores: Scores | AnswerScores | None, before: AnswerScores | None
) -> str:
    """Say how right the model is on what was held out, beside who does not read the text.

    Args:
        run: its folder.
        task: classification, regression or answers.
        scores: on the hold-out; None without one.
        before: of answers, before any step.
    """
    if scores is None:
        lines = ["Nothing was held out, so how right it is on other texts is not known."]
    elif isinstance(scores, ClassScores):
        lines = _classes(scores)
    elif isinstance(scores, NumberScores):
        lines = _numbers(scores)
    else:
        lines = _answers(scores, before)
    ask = (
        f'  nextword generate {argument(run.name)} "a prompt"'
        if task == "answers"
        else f'  nextword classify {argument(run.name)} "a text"'
    )
    return "\n".join(["", *lines, "", "Try next:", ask])


def _classes(scores: ClassScores) -> list[str]:
    names = scores.names[:SHOWN_CLASSES]
    rows = [
        [name, *map(str, row[: len(names)])]
        for name, row in zip(names, scores.confusion, strict=False)
    ]
    more = len(scores.names) - len(names)
    return [
        f"On {scores.examples:,} examples it never saw:",
        f"accuracy    {scores.accuracy:.1%}; always saying {scores.majority!r}, the commonest: "
        f"{scores.baseline_accuracy:.1%}",
        f"macro-F1    {scores.macro_f1:.3f}; the same baseline: {scores.baseline_macro_f1:.3f}",
        f"loss        {scores.loss:.4f} nats an example (cross-entropy)",
        "",
        "What a person said, by row, and what the model said, by column:",
        *table(["", *names], rows, frozenset({0})),
        *([f"and {more} more classes; --json has them all"] if more else []),
    ]


def _numbers(scores: NumberScores) -> list[str]:
    explained = scores.r_squared
    return [
        f"On {scores.examples:,} examples it never saw:",
        f"mean squared error  {scores.loss:.6g}; always saying the mean: {scores.baseline:.6g}",
        "R²                  "
        + ("the numbers held out do not vary" if explained is None else f"{explained:.3f}")
        + " (1: every number right; 0: no better than their mean)",
    ]


def _answers(scores: AnswerScores, before: AnswerScores | None) -> list[str]:
    was = f" (before: {before.loss:.4f})" if before else ""
    exact = f" (before: {before.exact / before.examples:.1%})" if before else ""
    return [
        f"On {scores.examples:,} prompts it never saw, counting {scores.tokens:,} tokens of "
        "answers and their ends:",
        f"loss        {scores.loss:.4f} nats an answer token{was}",
        f"right       {scores.right / scores.tokens:.1%} of the tokens were the likeliest",
        f"exact       {scores.exact / scores.examples:.1%} of the answers it would write just "
        f"so, and stop{exact}",
    ]


def describe_said(said: Said) -> str:
    """Say what a model made of one text."""
    if said.number is not None:
        return said.label
    width = max(map(len, said.probabilities))
    lines = [
        f"{name:<{width}}  {chance(p):>9}  {'█' * round(BAR * p)}".rstrip()
        for name, p in said.probabilities.items()
    ]
    return "\n".join(lines)
