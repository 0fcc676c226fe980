"""The training loop: read a batch, compute the loss, step the optimizers, call the callbacks."""

import itertools
import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nextword.base.errors import DivergedError, SettingsError, is_out_of_memory
from nextword.base.records import Count, Size
from nextword.base.signals import Broken, breakable
from nextword.machine.device import Machine
from nextword.machine.memory import give_back_memory
from nextword.machine.ranks import Ranks
from nextword.machine.readback import Sent, computes_beside
from nextword.training.ahead import Ahead, BatchLike, Ready
from nextword.training.gradients import Gradient, add_up_parts, checked, forget_gradients, move
from nextword.training.options import TrainingSettings
from nextword.training.schedule import Pace, rate_factor
from nextword.training.spreading import add_up_copies
from nextword.training.step import add_gradients

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
    recompute: str = "none"
    """What is computed a second time for the gradient, and not kept: none, selective, full."""
    compiled: bool = False
    """Whether the layers are."""
    written: Count = 0
    """Of a step's rows, the last ones, those that counting writes; all others are the text's."""

    def __post_init__(self) -> None:
        """Refuse a run that would read nothing of its text."""
        if self.written >= self.rows:
            raise SettingsError(f"of {self.rows} rows a step {self.written} are not the text's")

    @property
    def read(self) -> int:
        """Windows of the text a step, over all processes."""
        return self.rows - self.written

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
    settle: Callable[[], None] = lambda: None
    """Waits until the figures of all steps up to this one are known and written down."""


@dataclass(frozen=True)
class Callback:
    """Call `action` after every `steps` steps and at the end; at the start too if asked."""

    steps: int
    action: Callable[[TrainerState], None]
    at_start: bool = False
    at_end: bool = True
    when: Literal["settled", "later", "at once"] = "settled"
    """With this step's figures and weights; with its figures, when the next step may be under way
    already; or with neither, by one who looks at something else and calls `settle` before acting.
    """

    def is_due(self, state: TrainerState) -> bool:
        """Whether this is the moment."""
        if state.step == 0:
            return self.at_start
        return state.step % self.steps == 0 or (self.at_end and state.is_last)


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
    behind: bool | None = None
    """Whether a step's figures are read once the next is under way; default: where a device
    computes beside this machine. Never where a step is skipped by them."""
    halved: Callable[[int, int], None] = lambda step, rows: None
    """Told of a step from which on, for want of memory, fewer rows are held at once."""
    has_halved: bool = False

    @property
    def looks_behind(self) -> bool:
        """Whether figures are read a step later."""
        if self.settings.on_spike == "skip":
            return False
        return computes_beside(self.machine.device) if self.behind is None else self.behind


def run_loop(training: Training, first_step: int, callbacks: Sequence[Callback]) -> TrainerState:
    """Train from a step to the last.

    Args:
        training: network, data and plan.
        first_step: steps done before: 0, or where a checkpoint stands.
        callbacks: what to call, in order, after each step; those that are called later come first.

    Returns:
        the state after the last step.

    Raises:
        DivergedError: loss or gradient is not a number; the weights are those of the step before,
            or of no use where figures are read a step later.
        Broken: a stop was asked for in the middle of a step; the weights are as before it.
    """
    ranks = training.ranks
    pace = training.pace or Pace(training.plan.steps)
    state = TrainerState(first_step)
    if first_step == 0:
        _call([one for one in callbacks if one.at_start], state)
    beside = training.looks_behind
    behind = _Behind(training, [one for one in callbacks if one.when == "later"], first_step)
    others = [one for one in callbacks if one.when != "later"]
    with Ahead(training.read, training.machine.device, beside) as ahead:
        while state.step < pace.steps:
            step = state.step
            factor = rate_factor(*pace.place(step), training.settings) * pace.scale(step)
            last = step + 1 == pace.steps
            state = TrainerState(step + 1, rate_factor=factor, is_last=last, settle=behind.settle)
            if step in training.left_out:
                behind.settle()
                _call(callbacks, state)
                continue
            ready = ahead.take(step, _parts(training), pace.place(step))
            if beside and not last:
                ahead.prepare(step + 1, _parts(training), pace.place(step + 1))
            try:  # of several processes none leaves alone
                with breakable() if ranks.size == 1 else nullcontext():
                    nats = _gradients(training, ready)
                    if nats is None:
                        behind.settle()
                        _halve(training, step)
                        ready = ahead.take(step, _parts(training), pace.place(step))
                        nats = _gradients(training, ready)
                        assert nats is not None  # the second time its error is let out
            except Broken as broken:
                behind.settle()
                broken.step = step
                raise
            behind.add(_move(training, nats, state))
            waits = [one for one in others if one.when == "settled" and one.is_due(state)]
            if not beside or waits or last:
                behind.settle()
            else:
                behind.settle(but=1)
            if _call(others, state):
                behind.clock_again(state.step)
    return state


def _gradients(training: Training, ready: Ready) -> Tensor | float | None:
    """Add up a step's gradients.

    Returns:
        its loss, as a number or where the network is; None where memory did not suffice, once.
    """
    device, ranks = training.machine.device, training.ranks
    targets: float = training.plan.batch_tokens
    if not training.every_token_is_a_target:
        targets = ready.num_targets
        if ranks.size > 1:
            counted = float(targets) if ranks.counts_rows else 0.0
            targets = float(ranks.sum(torch.tensor(counted, device=device)))
    try:
        parts = add_gradients(training.loss, ready.batches, targets, device, ranks.averages)
        add_up_copies(training.model)
    except (RuntimeError, MemoryError) as error:
        can_halve = not training.has_halved and training.plan.micro_rows > 1
        if ranks.size > 1 or not can_halve or not is_out_of_memory(error):
            raise
        return None  # the error holds on to what was computed; what follows needs that room
    if training.looks_behind:
        return ranks.sum(torch.stack(parts).double().sum())
    nats = sum(map(float, parts), 0.0)
    if ranks.size == 1:
        return nats
    return float(ranks.sum(torch.tensor(nats, dtype=torch.float64, device=device)))


def _halve(training: Training, step: int) -> None:
    """Hold half as many rows at once from a step on: the gradients' sum stays the same."""
    forget_gradients(training.model, training.optimizers)
    give_back_memory(training.machine.device)
    rows = training.plan.micro_rows // 2
    training.plan = replace(training.plan, micro_rows=rows)
    training.has_halved = True
    training.halved(step, rows)


@dataclass
class _Taken:
    """A step that was taken, and whose figures may be on their way."""

    state: TrainerState
    names: list[str]
    figures: Sent | None
    """Its loss, the gradient's length, and the length of each weight's."""
    known: tuple[float, float] | None = None
    """The first two, where somebody has looked already."""
    each: Sequence[Tensor] = ()


def _move(training: Training, nats: Tensor | float, state: TrainerState) -> _Taken:
    """Move the weights; look at the figures first, unless they are read later.

    Raises:
        DivergedError: loss or gradient is no number; no weight has been touched.
    """
    settings = training.settings
    gradient = Gradient.of(training.model, training.optimizers)
    if isinstance(nats, Tensor):
        figures = Sent([nats, *(one.double() for one in (gradient.norm, *gradient.norms))])
        move(training.optimizers, gradient, state.rate_factor, settings.clip_norm, None)
        return _Taken(state, gradient.names, figures)
    norm = _checked(state, nats, float(gradient.norm))
    taken = _Taken(state, gradient.names, None, (nats, norm), gradient.norms)
    _, longest = _usual_and_longest(training)
    if settings.on_spike == "skip" and norm > longest:
        forget_gradients(training.model, training.optimizers)
    else:
        move(training.optimizers, gradient, state.rate_factor, settings.clip_norm, norm)
    return taken


def _checked(state: TrainerState, nats: float, norm: float) -> float:
    """Return a gradient's length.

    Raises:
        DivergedError: it or the loss is no number; names the step.
    """
    try:
        if not math.isfinite(nats):
            raise DivergedError(f"the loss is {nats}")
        return checked(norm)
    except DivergedError as error:
        diverged = DivergedError(f"step {state.step}: {error}")
        diverged.step = state.step - 1
        raise diverged from None


class _Behind:
    """Steps that were taken and whose figures nobody has seen."""

    def __init__(self, training: Training, callbacks: Sequence[Callback], step: int) -> None:
        self.training, self.callbacks = training, callbacks
        self.taken: deque[_Taken] = deque()
        self.clock_again(step)

    def clock_again(self, step: int) -> None:
        """Measure speed from here on: what came before was no training."""
        self.clock, self.since = time.perf_counter(), step

    def add(self, taken: _Taken) -> None:
        """Take in one more."""
        self.taken.append(taken)

    def settle(self, but: int = 0) -> None:
        """Read all figures but those of the last so many steps, and call who waits for them.

        Raises:
            DivergedError: they are no numbers.
        """
        while len(self.taken) > but:
            self._see(self.taken.popleft())

    def _see(self, taken: _Taken) -> None:
        training, state = self.training, taken.state
        if taken.known is not None:
            (nats, norm), each = taken.known, []
        else:
            assert taken.figures is not None
            nats, norm, *each = taken.figures.read()
            _checked(state, nats, norm)
        usual, longest = _usual_and_longest(training)
        training.norms.append(norm)
        state.loss, state.gradient_norm = nats, norm
        now = time.perf_counter()
        tokens = (state.step - self.since) * training.plan.batch_tokens
        state.tokens_per_second = tokens / (now - self.clock)
        if norm > longest:
            each = each or [float(one) for one in taken.each]
            state.spike = usual
            state.parts = add_up_parts(taken.names, each[: len(taken.names)])
        _call(self.callbacks, state)


def _usual_and_longest(training: Training) -> tuple[float, float]:
    """Return the median length of the last gradients, and the longest that is not far longer."""
    if len(training.norms) < FEWEST_NORMS:
        return float("nan"), float("inf")
    usual = statistics.median(training.norms)
    return usual, training.settings.spike_factor * usual


def _call(callbacks: Sequence[Callback], state: TrainerState) -> bool:
    """Call who is due; tell whether anything slow may have happened."""
    slow = False
    for callback in callbacks:
        if callback.is_due(state):
            callback.action(state)
            slow = slow or callback.steps > 1
    return slow


def _parts(training: Training) -> list[slice]:
    """Divide this process's share of the rows into parts that fit in memory.

    Where weights are divided, each part is computed by all at once: all have equally many then,
    though one may have a row more than another.
    """
    plan, ranks = training.plan, training.ranks
    first, end = ranks.share(plan.rows)
    if not ranks.divides_weights:
        return [
            slice(start, min(start + plan.micro_rows, end))
            for start in range(first, end, plan.micro_rows)
        ]
    most = -(-plan.rows // ranks.groups)
    parts = -(-most // plan.micro_rows)
    cuts = [first + (end - first) * number // parts for number in range(parts + 1)]
    return [slice(*pair) for pair in itertools.pairwise(cuts)]


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
