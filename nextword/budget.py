"""Training within a time: measure the machine, then choose the network and its steps."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from nextword.base.errors import SettingsError
from nextword.callbacks import evaluation_every
from nextword.explanation.ruler import measure_rivals
from nextword.forecast import time_evaluation, time_steps
from nextword.language_modeling import LanguageModeling, evaluated_tokens
from nextword.model.shape import ModelSettings
from nextword.rendering.progress import duration
from nextword.run import Clock, Run
from nextword.settings import Settings
from nextword.training.journal import Journal
from nextword.vocabulary.prepared import Prepared
from nextword.warm_start import WarmStart

DEPTHS = (2, 3, 4, 6, 8)
"""Networks that are weighed."""
ENDING_SECONDS = 1.0
"""Of what follows the last step beside the whole hold-out: checkpoint, sample, words."""


class Choice(NamedTuple):
    """A network and what there is time for."""

    run: Run
    step_seconds: float
    seconds: float
    """That its default number of steps would take."""


def within(
    run: Run,
    prepared: Prepared,
    warm_start: WarmStart | None,
    *,
    began: float,
    lay: Callable[[Settings], Run],
) -> Run:
    """Choose the network, and how many steps there is time for.

    Args:
        run: as it would be without a limit.
        prepared: its text.
        warm_start: the weights it begins with; the network is then theirs.
        began: when the command was given, by `time.monotonic`.
        lay: lays a run out by other settings.

    Returns:
        the run, with a clock.

    Raises:
        SettingsError: there is no time for a single step.
    """
    clock = Clock.of(run.settings.training.minutes or 0.0, began)
    run.progress.say("measuring what counting needs, and this machine")
    if run.ranks.is_first:
        measure_rivals(prepared)  # which the end compares with: kept, so that it need not wait
    task = LanguageModeling(run, prepared, warm_start)
    token = _of_the_first(run, time_evaluation(run, prepared))
    clock = dataclasses.replace(clock, reserve=ENDING_SECONDS + token * len(prepared.holdout))
    model = run.settings.model
    said = dataclasses.replace(model, tie_word_embeddings=None) != ModelSettings()
    depths: Sequence[int] = DEPTHS
    if warm_start is not None or said:
        depths = (run.shape.num_hidden_layers,)
    found: list[Choice] = []
    for depth in depths:
        sized = dataclasses.replace(model, depth=depth)
        one = lay(dataclasses.replace(run.settings, model=sized)) if len(depths) > 1 else run
        seconds = _of_the_first(one, time_steps(one, task).seconds)
        found.append(Choice(one, seconds, seconds * one.pace.steps))
        if found[-1].seconds > clock.left:
            break
    chosen = choose(found, clock.left)
    judged = token * min(evaluated_tokens(chosen.run), len(prepared.holdout))
    left = clock.left
    steps = int(left / (chosen.step_seconds + judged / evaluation_every(chosen.run)))
    if steps < 1:
        asked = run.settings.training.minutes
        raise SettingsError(
            f"training.minutes = {asked:g}: nothing of it is left when the text is prepared and "
            "the end is kept free; give it more time"
        )
    for measured in found:
        shape = measured.run.shape
        run.progress.say(
            f"            {shape.num_hidden_layers} layers, {shape.hidden_size} wide: "
            f"{measured.step_seconds:.3g} s a step, {duration(measured.seconds)} for the usual "
            f"{measured.run.pace.steps:,} steps{'; taken' if measured is chosen else ''}"
        )
    plan = dataclasses.replace(chosen.run.plan, steps=steps)
    return dataclasses.replace(chosen.run, plan=plan, clock=clock)


def go_on_by_clock(run: Run, prepared: Prepared) -> None:
    """Take up the pace that a run had when it stopped; its clock stood still meanwhile."""
    if run.clock is None:
        return
    for event in Journal(run.folder).read():
        if event.get("event") == "pace" and event["step"] <= run.first_step:
            run.pace.change(event["step"], event["steps"])
    token = _of_the_first(run, time_evaluation(run, prepared))
    reserve = ENDING_SECONDS + token * len(prepared.holdout)
    run.clock = dataclasses.replace(run.clock, reserve=reserve)


def choose(found: Sequence[Choice], left: float) -> Choice:
    """Return the largest network for whose usual number of steps there is time; else the first."""
    fitting = [one for one in found if one.seconds <= left]
    return fitting[-1] if fitting else found[0]


def _of_the_first(run: Run, value: float) -> float:
    """Return what the first process measured: all of them must decide alike."""
    if run.ranks.size == 1:
        return value
    mine = value if run.ranks.is_first else 0.0
    return float(run.ranks.sum(torch.tensor(mine, device=run.machine.device)))
