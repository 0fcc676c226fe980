"""Forecast of a run, without training it; and the network and steps there is time for.

A few steps are taken on weights that are thrown away, and timed; nothing is written but what the
text's preparation keeps. `within` chooses by the same times.
"""

import dataclasses
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from nextword.base.errors import SettingsError
from nextword.callbacks import evaluated_tokens, evaluation_every
from nextword.explanation.forecast import ABOVE_FLOOR, Forecast, expectation
from nextword.explanation.previews import floor_of
from nextword.explanation.ruler import count_holdout, measure_rivals
from nextword.language_modeling import LanguageModeling
from nextword.loss.bits import bits
from nextword.model.shape import DEPTH
from nextword.model.transformer import Transformer
from nextword.prediction.evaluate import Evaluation, evaluate
from nextword.rendering.progress import duration
from nextword.run import Clock, Run
from nextword.settings import Settings
from nextword.training.gradients import update
from nextword.training.loop import TrainerState, Training
from nextword.training.optimizers import build_optimizers, groups_of
from nextword.training.plan import default_depth
from nextword.training.remembered import follow_journal
from nextword.training.step import accumulate
from nextword.vocabulary.prepared import Prepared
from nextword.warm_start import WarmStart

WORTH = {2: 0, 3: 0, 4: 200_000, 6: 5_000_000, 8: 50_000_000}
"""Networks that are weighed, by depth, and the training tokens from which on each is.

Three layers beside two, in two to three times the time, with what is then left out (dropout): 0.2
to 2.6 % better on 100 kB of four texts (42,000 tokens), 1.4 to 4.0 on 300 kB, 0.9 and 3.2 on a
megabyte of two (320,000). Four beside three: 0.3 % better to 1.6 % worse on 300 kB, 0.3 and 1.0 %
better on a megabyte. From there on the rule was not tried.
"""
ENOUGH, TAUGHT_ENOUGH = 0.7, 0.8
"""Of the usual number of steps, for which there must be time, and after those of all teachers; more
there, as what is not begun yet is foreseen less well. Three layers with 0.73 of them came to 1.4 %
less than two, with 0.69 of them (another text) to 0.7 % more; four, taught, with 0.56 of them to
more than three alone (`EXPERIMENTS.md`)."""
FORWARD = 1 / 3
"""Of its own step, what asking a teacher takes: it goes forward, and a step also backward, which is
twice that. Three layers took no longer with one teacher in place of counting, and a fifth longer
with two (100 kB)."""
MOST_READINGS, MOST_OF_SMALL = 1.2, 1.0
"""Of the usual number of steps; and of a text so small that others' expectations are learned beside
it: more of them teach nothing but the text by heart. On a megabyte of Python source 1.5 times as
many brought nothing to two layers and 0.2 % less than half of them to three; of plays 1.2 times as
many made three taught layers 0.8 % worse, and four learned by heart after 0.9 of them."""
ENDING_SECONDS = 1.0
"""Of what follows the last step beside the whole hold-out: checkpoint, sample, words."""
LEAST_STEPS, LEAST_SECONDS = 3, 2.0
"""Steps that are timed, and for how long."""
EVALUATED_TOKENS = 8_000
EVENT_BYTES = 260
"""Of the log, a step."""


class Timed(NamedTuple):
    """What some steps took."""

    seconds: float
    """Of one, the median."""
    state_bytes: int
    """Of the weights and the optimizers' state, as a checkpoint holds them."""


def time_steps(run: Run, task: LanguageModeling) -> Timed:
    """Time steps of training on weights that are thrown away."""
    machine = run.machine
    task.suit(run)
    model = Transformer(run.shape).to(machine.device)
    model.set_precision(machine.precision)
    optimizers = build_optimizers(groups_of(model), run.training)
    plan, loss = run.plan, task.loss(run, model)
    training = Training(
        *(loss, model, optimizers, task.read, plan, run.training, machine, run.ranks)
    )
    seconds: list[float] = []
    ends, step = time.perf_counter() + LEAST_SECONDS, 0
    first, last = run.ranks.share(plan.rows)
    # Of several processes none leaves alone: their optimizer's matrices are shared out.
    while any(run.ranks.most(len(seconds) < LEAST_STEPS or time.perf_counter() < ends)):
        began = time.perf_counter()
        for start in range(first, last, plan.micro_rows):
            rows = slice(start, min(start + plan.micro_rows, last))
            batch = [training.read(step, rows)]
            accumulate(loss, batch, plan.batch_tokens, machine.device)
        update(model, optimizers, 1e-3, run.training.clip_norm)
        machine.synchronize()
        if step:  # the first one pays for what is made once
            seconds.append(time.perf_counter() - began)
        step += 1
    state = (
        value
        for optimizer in optimizers
        for values in optimizer.state.values()
        for value in values.values()
        if isinstance(value, torch.Tensor)
    )
    held = sum(4 * tensor.numel() for tensor in (*state, *model.parameters()))
    # Those who share rows or layers divide what each has done whole here.
    return Timed(statistics.median(seconds) / run.ranks.together, held)


def time_evaluation(run: Run, prepared: Prepared) -> float:
    """Return the seconds of scoring one held-out token."""
    model = Transformer(run.shape).to(run.machine.device).eval()
    began = time.perf_counter()
    scores = evaluate(
        model,
        prepared.holdout,
        run.settings.evaluation,
        max_tokens=EVALUATED_TOKENS,
        withheld="not asked",
    )
    run.machine.synchronize()
    return (time.perf_counter() - began) / scores.tokens


def forecast(run: Run, task: LanguageModeling) -> Forecast:
    """Foresee a run.

    Args:
        run: as it would begin.
        task: its text.
    """
    began = time.perf_counter()
    counted = count_holdout(task.prepared) if run.shape.causal else None
    beside = time.perf_counter() - began
    model = task.model(run)  # with the first weights that it would have, which take memory too
    task.judge(run, model, TrainerState(1))
    began = time.perf_counter()
    task.judge(run, model, TrainerState(1))
    judged = time.perf_counter() - began
    del model
    timed, token = time_steps(run, task), time_evaluation(run, task.prepared)
    each = [(one, time_steps(one, task)) for one in run.teachers] + [(run, timed)]
    networks = [Choice(one, its.seconds, its.seconds * one.pace.steps) for one, its in each]
    stepping = sum(taught_seconds(networks))
    if run.training.minutes is not None:
        stepping = min(stepping, 60 * run.training.minutes)
    times = math.ceil(run.pace.steps / evaluation_every(run))
    tokens = run.pace.steps * run.plan.batch_tokens
    return Forecast(
        parameters=run.shape.parameters(),
        steps=run.pace.steps,
        tokens=tokens,
        readings=tokens / len(task.prepared.train),
        step_seconds=timed.seconds,
        seconds=stepping + judged * times + token * len(task.prepared.holdout) + beside,
        memory_bytes=peak_memory(run.machine.device),
        disk_bytes=sum(2 * its.state_bytes + EVENT_BYTES * one.pace.steps for one, its in each),
        flops=_operations([one for one, _ in each]),
        teachers=len(run.teachers),
        **_loss(run, task, counted),
    )


def _operations(networks: Sequence[Run]) -> float:
    """Count those of all steps of networks each of which is taught by all before it."""
    done, asked = 0.0, 0.0
    for one in networks:
        own = one.shape.flops_per_token()
        done += one.pace.steps * one.plan.batch_tokens * (own + asked)
        asked += FORWARD * own
    return done


def _loss(run: Run, task: LanguageModeling, counted: float | None) -> dict[str, Any]:
    """Say what it should come to, where the settings that decide it are those that were tried."""
    known: dict[str, Any] = {"expected": None, "counted": counted}
    training, model = run.settings.training, run.settings.model
    said = (training.steps, training.tokens, training.batch_tokens, training.minutes)
    if counted is None or any(said) or training.teacher or run.warm_start:
        return known
    holdout = task.prepared.holdout
    whole = Evaluation(documents=holdout.num_documents, tokens=len(holdout))
    floor = floor_of(task.prepared, whole)
    usual = DEPTH if floor else default_depth(len(task.prepared.train))
    if (model.depth or DEPTH) != usual:
        return known
    if floor is None:
        return {**known, "expected": expectation(counted, task.prepared.facts["bytes"])}
    raw = int(holdout.document_bytes.sum()) if holdout.document_bytes is not None else len(holdout)
    least = bits(floor.nats_per_token * len(holdout)) / raw
    expected = tuple(least * share for share in ABOVE_FLOOR)
    return {**known, "expected": expected, "floor": least}


def peak_memory(device: torch.device) -> int | None:
    """Return the most memory held so far, in bytes: on the accelerator, or of this process.

    None where the system does not tell, as Windows does not by Python's own means.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "xpu":
        return int(torch.xpu.max_memory_allocated(device))
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


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
    lay: Callable[[Settings], Run] | None,
    trained: int = 0,
) -> Run:
    """Choose the network, and how many steps there is time for.

    Args:
        run: as it would be without a limit.
        prepared: its text.
        warm_start: the weights it begins with; the network is then theirs.
        began: when the command was given, by `time.monotonic`.
        lay: lays a run out by other settings; None where a size of the network was said.
        trained: how many networks have been trained to teach it, the smallest first.

    Returns:
        the run, with a clock; or with teachers, of which the first is to be trained before more is
        decided.

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
    size = len(prepared.train)
    depths = [depth for depth, least in WORTH.items() if least <= size]
    if warm_start is not None or lay is None:
        depths = [run.shape.num_hidden_layers]
    found: list[Choice] = []
    for depth in depths[min(trained, len(depths) - 1) :]:
        sized = dataclasses.replace(model, depth=depth)
        one = run
        if lay is not None and depth != run.shape.num_hidden_layers:
            one = lay(dataclasses.replace(run.settings, model=sized))
        seconds = _of_the_first(one, time_steps(one, task).seconds)
        found.append(Choice(one, seconds, seconds * one.pace.steps))
        if ENOUGH * found[-1].seconds > _of_the_first(run, clock.left):
            break
    left = _of_the_first(run, clock.left)
    # Where several processes would each choose a folder for a teacher, none is trained.
    alone = lay is None or not run.training.soft_targets or run.ranks.size > 1
    alone = alone or (run.training.teacher is not None and not trained)
    if not alone and trained < len(depths) == len(found) + trained:
        found.append(found[-1]._replace())  # once more, and all before teach it
    chosen, teachers = choose(found, left, alone=alone)
    if teachers:
        run.progress.say(_compared(found, chosen, teachers))
        return dataclasses.replace(chosen.run, teachers=[one.run for one in teachers])
    judged = token * min(evaluated_tokens(chosen.run), len(prepared.holdout))
    steps = int(left / (chosen.step_seconds + judged / evaluation_every(chosen.run)))
    if steps < 1:
        asked = run.settings.training.minutes
        raise SettingsError(
            f"training.minutes = {asked:g}: nothing of it is left when the text is prepared and "
            "the end is kept free; give it more time"
        )
    run.progress.say(_compared(found, chosen))
    times = MOST_OF_SMALL if chosen.run.training.soft_targets else MOST_READINGS
    most = max(int(times * chosen.run.pace.steps), 1)
    if steps > most:
        took = most * chosen.step_seconds
        run.progress.say(
            f"            more than {most:,} steps would only teach it the text by heart: it will "
            f"end in about {duration(took)}, before its time"
        )
        return dataclasses.replace(
            chosen.run, plan=dataclasses.replace(chosen.run.plan, steps=most)
        )
    plan = dataclasses.replace(chosen.run.plan, steps=steps)
    return dataclasses.replace(chosen.run, plan=plan, clock=clock)


def go_on_by_clock(run: Run, prepared: Prepared) -> None:
    """Take up the pace that a run had when it stopped; its clock stood still meanwhile."""
    if run.clock is None:
        return
    follow_journal(run.pace, run.folder, run.first_step)
    token = _of_the_first(run, time_evaluation(run, prepared))
    reserve = ENDING_SECONDS + token * len(prepared.holdout)
    run.clock = dataclasses.replace(run.clock, reserve=reserve)


def choose(
    found: Sequence[Choice], left: float, *, alone: bool = False
) -> tuple[Choice, Sequence[Choice]]:
    """Return the best network for which there is time, and those that are to teach it.

    Each network learns from those before, the smallest from the text alone or from those that have
    been trained: as many of them as there is time for. Where there is none for two, it is the
    largest by itself.

    Args:
        found: networks, from the smallest on.
        left: seconds.
        alone: nobody is to teach it.
    """
    for last in range(0 if alone else len(found) - 1, 0, -1):
        *before, own = taught_seconds(found[: last + 1])
        if sum(before) + TAUGHT_ENOUGH * own <= left:
            return found[last], found[:last]
    fitting = [one for one in found if ENOUGH * one.seconds <= left]
    return fitting[-1] if fitting else found[0], ()


def taught_seconds(networks: Sequence[Choice]) -> list[float]:
    """Return how long each takes, where all before teach it."""
    taken, asked = [], 0.0
    for one in networks:
        taken.append(one.seconds * (1 + asked / one.step_seconds))
        asked += FORWARD * one.step_seconds
    return taken


def _compared(found: Sequence[Choice], chosen: Choice, teachers: Sequence[Choice] = ()) -> str:
    """Say how long each network would take, and which is taken."""
    says = {id(chosen): "; taken", **{id(one): "; first, to teach the next" for one in teachers}}
    lines, before = [], 0
    for one in found:
        layers = one.run.shape.num_hidden_layers
        network = f"{layers} layers, {one.run.shape.hidden_size} wide"
        once_more = " once more, taught by all before" if layers == before else ""
        lines.append(
            f"            {network}{once_more}: {one.step_seconds:.3g} s a step, "
            f"{duration(one.seconds)} for the usual {one.run.pace.steps:,} steps"
            f"{says.get(id(one), '')}"
        )
        before = layers
    return "\n".join(lines)


def _of_the_first(run: Run, value: float) -> float:
    """Return what the first process measured: all of them must decide alike."""
    if run.ranks.size == 1:
        return value
    mine = value if run.ranks.is_first else 0.0
    return float(run.ranks.sum(torch.tensor(mine, device=run.machine.device)))
