"""The training loop: read a batch, compute the loss, step the optimizers, call the callbacks."""

import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from nextword.base.errors import DivergedError
from nextword.base.records import Size
from nextword.base.signals import Broken, breakable
from nextword.machine.device import Machine
from nextword.machine.ranks import Ranks
from nextword.training.options import TrainingSettings
from nextword.training.schedule import Pace, rate_factor
from nextword.training.step import Parts, accumulate, update

REMEMBERED_NORMS, FEWEST_NORMS = 100, 20


@dataclass(frozen=True)
class Plan:
    """What a run will do, resolved."""

    steps: Size
    rows: Size
    """Windows a step, over all processes."""
    micro_rows: Size
    """Windows a process holds in memory at once."""
    context: Size

    @property
    def batch_tokens(self) -> int:
        """Tokens a step learns from."""
        return self.rows * self.context


@dataclass
class TrainerState:
    """Where training stands, as those who are called see it."""

    step: int
    """Steps done."""
    loss: float = float("nan")
    gradient_norm: float = float("nan")
    rate_factor: float = 0.0
    tokens_per_second: float = float("nan")
    is_last: bool = False
    spike: float | None = None
    """Of a gradient far longer than usual: the usual length."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """And the lengths of its parts, by their names."""


@dataclass(frozen=True)
class Callback:
    """Call `action` after every `steps` steps and at the end; at the start too if asked."""

    steps: int
    action: Callable[[TrainerState], None]
    at_start: bool = False
    at_end: bool = True

    def is_due(self, state: TrainerState) -> bool:
        """Whether this is the moment."""
        if state.step == 0:
            return self.at_start
        return state.step % self.steps == 0 or (self.at_end and state.is_last)


class BatchLike(Protocol):
    """A batch: arrays in the order in which the loss takes them."""

    @property
    def num_targets(self) -> float:
        """Count the targets that ask for something, by their weights."""

    def __iter__(self) -> Iterator[Any]:
        """Yield the arrays."""


@dataclass
class Training:
    """Everything one run of the loop works with."""

    loss: nn.Module
    model: nn.Module
    optimizers: Sequence[torch.optim.Optimizer]
    read: Callable[[int, slice], BatchLike]
    """Returns some rows of a step's batch; a pure function of both."""
    plan: Plan
    settings: TrainingSettings
    machine: Machine
    ranks: Ranks = field(default_factory=Ranks)
    every_token_is_a_target: bool = True
    """Whether each token that is read is also asked for."""
    pace: Pace | None = None
    """How many steps there are, where that may change on the way; default: the plan's."""
    left_out: set[int] = field(default_factory=set)
    """Steps whose batches are left out: they gave no number before."""
    norms: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED_NORMS))
    """Lengths of the last gradients, by which one is known to be far longer than usual."""


def run_loop(training: Training, first_step: int, callbacks: Sequence[Callback]) -> TrainerState:
    """Train from a step to the last.

    Args:
        training: network, data and plan.
        first_step: steps done before: 0, or where a checkpoint stands.
        callbacks: what to call, in order, after each step.

    Returns:
        the state after the last step.

    Raises:
        DivergedError: loss or gradient is not a number; the weights are those of the step before.
        Broken: a stop was asked for in the middle of a step; the weights are as before it.
    """
    plan, ranks = training.plan, training.ranks
    pace = training.pace or Pace(plan.steps)
    state = TrainerState(first_step)
    if first_step == 0:
        _call([one for one in callbacks if one.at_start], state)
    clock, since = time.perf_counter(), first_step
    while state.step < pace.steps:
        step = state.step
        factor = rate_factor(*pace.place(step), training.settings) * pace.scale(step)
        if step in training.left_out:
            state = TrainerState(step + 1, rate_factor=factor, is_last=step + 1 == pace.steps)
            _call(callbacks, state)
            continue
        parts = _rows_of(plan, ranks)
        batches = [training.read(step, rows) for rows in parts]
        targets: float = plan.batch_tokens
        if not training.every_token_is_a_target:
            targets = count_targets(batches, training)
        try:  # of several processes none leaves alone
            with breakable() if ranks.size == 1 else nullcontext():
                device = training.machine.device
                nats = accumulate(training.loss, batches, targets, device, ranks.size)
        except Broken as broken:
            broken.step = step
            raise
        if ranks.size > 1:
            nats = float(
                ranks.sum(torch.tensor(nats, dtype=torch.float64, device=training.machine.device))
            )
        usual, longest = _usual_and_longest(training)
        try:
            if not math.isfinite(nats):
                raise DivergedError(f"the loss is {nats}")
            moved = (training.model, training.optimizers, factor, training.settings.clip_norm)
            noted = Parts(longest)
            norm = update(*moved, longest if training.settings.on_spike == "skip" else None, noted)
        except DivergedError as error:
            diverged = DivergedError(f"step {step + 1}: {error}")
            diverged.step = step
            raise diverged from None
        spike = usual if norm > longest else None
        training.norms.append(norm)
        now = time.perf_counter()
        speed = (step + 1 - since) * plan.batch_tokens / (now - clock)
        last = step + 1 == pace.steps
        state = TrainerState(step + 1, nats, norm, factor, speed, last, spike, noted.lengths)
        if _call(callbacks, state):
            clock, since = time.perf_counter(), step + 1
    return state


def _usual_and_longest(training: Training) -> tuple[float, float]:
    """Return the median length of the last gradients, and the longest that is not far longer."""
    if len(training.norms) < FEWEST_NORMS:
        return float("nan"), float("inf")
    usual = statistics.median(training.norms)
    return usual, training.settings.spike_factor * usual


def count_targets(batches: Sequence[BatchLike], training: Training) -> float:
    """Count the targets of a whole step, over all processes, that ask for something."""
    mine = float(sum(batch.num_targets for batch in batches))
    return float(training.ranks.sum(torch.tensor(mine, device=training.machine.device)))


def _call(callbacks: Sequence[Callback], state: TrainerState) -> bool:
    """Call who is due; tell whether anything slow may have happened."""
    slow = False
    for callback in callbacks:
        if callback.is_due(state):
            callback.action(state)
            slow = slow or callback.steps > 1
    return slow


def _rows_of(plan: Plan, ranks: Ranks) -> list[slice]:
    """Divide this process's share of the rows into parts that fit in memory."""
    share = plan.rows // ranks.size
    first = ranks.rank * share
    return [
        slice(start, min(start + plan.micro_rows, first + share))
        for start in range(first, first + share, plan.micro_rows)
    ]


def describe(state: TrainerState) -> dict[str, Any]:
    """Return a training step as the journal writes it."""
    return {
        "event": "step",
        "step": state.step,
        "loss": state.loss,
        "gradient_norm": state.gradient_norm,
        "rate_factor": state.rate_factor,
        "tokens_per_second": round(state.tokens_per_second, 1),
    }
