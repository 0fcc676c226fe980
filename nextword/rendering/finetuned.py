"""Plain words for a model that learned from examples: how right it is, what it says of a text."""

import math
from pathlib import Path

import numpy as np

from nextword.prediction.answers import AnswerScores
from nextword.prediction.labels import ClassScores, NumberScores, Said, Scores
from nextword.prediction.preferences import PreferenceScores
from nextword.prediction.several import SeveralScores
from nextword.rendering.formatting import argument, chance, table

BAR = 24
SHOWN_CLASSES, SHOWN_LABELS, SHOWN_CHANCES = 12, 4, 20


def describe_taught(
    run: Path,
    task: str,
    scores: Scores | SeveralScores | AnswerScores | PreferenceScores | None,
    before: AnswerScores | None,
    chats: bool = False,
) -> str:
    """Say how right the model is on what was held out, beside who does not read the text.

    Args:
        run: its folder.
        task: classification, multi_label, regression, answers or preferences.
        scores: on the hold-out; None without one.
        before: of answers, before any step.
        chats: whether its examples were conversations.
    """
    if scores is None:
        lines = ["Nothing was held out, so how right it is on other texts is not known."]
    elif isinstance(scores, ClassScores):
        lines = _classes(scores)
    elif isinstance(scores, SeveralScores):
        lines = _several(scores)
    elif isinstance(scores, NumberScores):
        lines = _numbers(scores)
    elif isinstance(scores, PreferenceScores):
        lines = _preferences(scores)
    else:
        lines = _answers(scores, before)
    ask = f'  nextword classify {argument(run.name)} "a text"'
    if task in ("answers", "preferences"):
        ask = f'  nextword generate {argument(run.name)} "a prompt"'
    if chats:
        ask = f"  nextword chat {argument(run.name)}"
    return "\n".join(["", *lines, "", "Try next:", ask])


def _classes(scores: ClassScores) -> list[str]:
    shown = sorted(np.argsort(-scores.true, kind="stable")[:SHOWN_CLASSES].tolist())
    names = [scores.names[one] for one in shown]
    rows = [
        [name, *map(str, row)] for name, row in zip(names, scores.confusion_of(shown), strict=True)
    ]
    more = len(scores.names) - len(names)
    return [
        f"On {scores.examples:,} examples it never saw:",
        f"accuracy    {_share(scores.accuracy)}; always saying {scores.majority!r}, the commonest: "
        f"{_share(scores.baseline_accuracy)}",
        f"macro-F1    {scores.macro_f1:.3f}; the same baseline: {scores.baseline_macro_f1:.3f}",
        f"loss        {scores.loss:.4f} nats an example (cross-entropy)",
        "",
        "What a person said, by row, and what the model said, by column:",
        *table(["", *names], rows, frozenset({0})),
        *([f"and {more:,} more classes, less common here; --json has them all"] if more else []),
    ]


def _share(share: float) -> str:
    """Write a share; of thousands of classes the commonest may be one text in ten thousand."""
    return f"{share:.1%}" if share >= 0.001 or not share else f"{100 * share:.2g}%"


def _several(scores: SeveralScores) -> list[str]:
    always, commonest = (
        ", ".join(map(repr, scores.named(labels)[:SHOWN_LABELS]))
        + (", …" if len(labels) > SHOWN_LABELS else "")
        for labels in (scores.always.labels, scores.always.commonest)
    )
    shown = sorted(np.argsort(-scores.true, kind="stable")[:SHOWN_CLASSES].tolist())
    rows = [
        [scores.names[one], *(str(part[one]) for part in (scores.true, scores.said, scores.right))]
        for one in shown
    ]
    more = len(scores.names) - len(shown)
    return [
        f"On {scores.examples:,} examples it never saw:",
        f"micro-F1    {scores.micro_f1:.3f}; always saying {always}: "
        f"{scores.baseline_micro_f1:.3f}",
        f"macro-F1    {scores.macro_f1:.3f}; the same baseline: {scores.baseline_macro_f1:.3f}",
        f"exact       {scores.exact / scores.examples:.1%} of the texts with all their labels and "
        f"no other; always saying {commonest or 'none'}, the commonest: "
        f"{scores.baseline_exact / scores.examples:.1%}",
        f"loss        {scores.loss:.4f} nats a label (binary cross-entropy)",
        "",
        "Of each label, how many texts have it, how many the model gave it, and how many of these "
        "rightly:",
        *table(["", "true", "said", "right"], rows, frozenset({0})),
        *([f"and {more:,} more labels, less common here; --json has them all"] if more else []),
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


def _preferences(scores: PreferenceScores) -> list[str]:
    return [
        f"On {scores.examples:,} pairs of answers it never saw:",
        f"right       {scores.right / scores.examples:.1%} of the preferred answers gained on the "
        "others (by chance: half)",
        f"loss        {scores.loss:.4f} nats a pair (before: {math.log(2):.4f})",
        f"rewards     {scores.chosen_reward:+.3f} preferred, {scores.rejected_reward:+.3f} others: "
        f"{scores.margin:.3f} apart, in β times nats",
    ]


def describe_said(said: Said) -> str:
    """Say what a model made of one text."""
    if said.number is not None:
        return said.label
    shown = list(said.probabilities.items())[:SHOWN_CHANCES]
    width = max(len(name) for name, _ in shown)
    lines = [
        f"{name:<{width}}  {chance(p):>9}  {'█' * round(BAR * p)}".rstrip() for name, p in shown
    ]
    if more := len(said.probabilities) - len(shown):
        lines.append(f"and {more:,} more, less likely; --json has them all")
    if said.labels is not None:
        lines.append(f"likelier than not: {', '.join(said.labels) or 'none'}")
    return "\n".join(lines)
