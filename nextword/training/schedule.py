"""Learning-rate schedule: warm-up, constant, decay by a power or a cosine, to zero or a floor."""

import math
from collections.abc import Iterable

from nextword.base.errors import SettingsError
from nextword.training.options import TrainingSettings

WARMUP_STEPS = 20
SOFT_FALL = 0.4
"""By which the share of what counting expects falls over a run."""


class Pace:
    """How far a run has come at each step, where its number of steps may change on the way.

    A run that follows the clock finds out how many steps there is time for while it learns. What
    has been passed of it stays as it was; what is left is divided among the steps that are left, so
    the rate goes on falling without a jump.
    """

    def __init__(self, steps: int, changes: Iterable[tuple[int, int]] = ()) -> None:
        """Begin with a number of steps.

        Args:
            steps: of the whole run, as planned at first.
            changes: what became of it: (from which step on, how many steps in all).

        Raises:
            SettingsError: a change comes before the one before it, or ends before it begins.
        """
        self.planned = steps
        self._from: list[tuple[int, float, int]] = [(0, 0.0, steps)]
        self._scales: list[tuple[int, float]] = [(0, 1.0)]
        for step, total in changes:
            self.change(step, total)

    @property
    def steps(self) -> int:
        """Of the whole run, as far as is known."""
        return self._from[-1][2]

    @property
    def changes(self) -> tuple[tuple[int, int], ...]:
        """From which step on there were how many steps in all."""
        return tuple((step, total) for step, _, total in self._from[1:])

    @property
    def scales(self) -> tuple[tuple[int, float], ...]:
        """From which step on the rate was multiplied by what, where somebody asked for that."""
        return tuple(self._scales[1:])

    def change(self, step: int, steps: int) -> None:
        """From a step on, end at another.

        Raises:
            SettingsError: it comes before the change before, or after its own end.
        """
        if not self._from[-1][0] < step < min(steps, self.steps):
            raise SettingsError(
                f"pace: from step {step} on {steps} steps; changes follow each other, each before "
                "the end"
            )
        place, total = self.place(step)
        self._from.append((step, place / total, steps))

    def slow_down(self, step: int, scale: float) -> None:
        """From a step on, multiply the rate that the schedule gives; what was to come later goes.

        Raises:
            SettingsError: it is no share.
        """
        if not 0 < scale <= 1:
            raise SettingsError(f"rate: {scale} times from step {step} on; a share above 0")
        first, *others = self._scales
        self._scales = [first, *(one for one in others if one[0] < step), (step, scale)]

    def scale(self, step: int) -> float:
        """Return by what the rate of a step is multiplied; 1 where nobody has asked for less."""
        return next(scale for since, scale in reversed(self._scales) if since <= step)

    def place(self, step: int) -> tuple[float, int]:
        """Return where a step stands in a run that had always had as many steps as were then known.

        What becomes of the number of steps later makes no difference to it.
        """
        since, passed, steps = next(one for one in reversed(self._from) if one[0] <= step)
        if not since:
            return step, steps
        return (passed + (1 - passed) * (step - since) / (steps - since)) * steps, steps


def read_pace(text: str, steps: int) -> Pace:
    """Read the pace of a recipe, "120:800 240:790": from step 120 on 800 steps in all, and so on.

    Raises:
        SettingsError: it cannot be read.
    """
    try:
        pairs = [tuple(int(number) for number in part.split(":")) for part in text.split()]
        changes = [(step, total) for step, total in pairs]
    except ValueError:
        raise SettingsError(
            f"training.pace = {text!r}: write STEP:STEPS, parted by blanks, as in 120:800 240:790"
        ) from None
    return Pace(steps, changes)


def read_rates(pace: Pace, text: str) -> None:
    """Lower a pace's rates as a recipe says, "120:0.5 240:0.25": from step 120 on half, and so on.

    Raises:
        SettingsError: it cannot be read.
    """
    try:
        for part in text.split():
            step, scale = part.split(":")
            pace.slow_down(int(step), float(scale))
    except ValueError:
        raise SettingsError(
            f"training.rates = {text!r}: write STEP:SHARE, parted by blanks, as in 120:0.5 240:0.25"
        ) from None


def rate_factor(step: float, steps: int, settings: TrainingSettings) -> float:
    """Return by what the peak learning rate is multiplied at a step.

    Args:
        step: from 0; not whole where the run's number of steps has changed.
        steps: of the whole run.
        settings: warm-up, decay and floor.

    Returns:
        a number in (0, 1]: rising linearly, then 1, then falling so that the floor (zero by
        default) would come just after the end.
    """
    warmup = settings.warmup_steps
    if warmup is None:
        warmup = min(WARMUP_STEPS, steps // 10)
    factor = min(1.0, (step + 1) / (warmup + 1))
    if settings.decay_share > 0:
        left = min((steps - step) / max(steps * settings.decay_share, 1.0), 1.0)
        if settings.decay == "cosine":
            fallen = (1 - math.cos(math.pi * left)) / 2
        else:
            fallen = left ** (settings.decay_power or 1.0)
        floor = settings.decay_floor
        factor = min(factor, floor + (1 - floor) * fallen if floor else fallen)
    return factor


def soft_share(begin: float, step: float, steps: int) -> float:
    """Return how much of each target is what counting expects: falling in a straight line.

    Args:
        begin: the share of the first step.
        step: from 0.
        steps: of the whole run, after which SOFT_FALL is gone.
    """
    return max(0.0, begin - SOFT_FALL * step / steps)


def cosine_rate(step: int, *, peak: float, floor: float, warmup: int, steps: int) -> float:
    """Return a learning rate: linear warm-up, then half a cosine down to a floor, then the floor.

    Source: Loshchilov & Hutter 2017 (SGDR), without restarts; the form of GPT-3 and Llama.

    Args:
        step: from 0; at `warmup` the peak is reached.
        peak: the highest rate.
        floor: the lowest, from `steps` on.
        warmup: steps of rising.
        steps: at which the floor is reached.

    Returns:
        peak · step / warmup before the peak, then floor + (peak − floor) · (1 + cos πx) / 2, where
        x runs from 0 to 1 between `warmup` and `steps`.
    """
    if step < warmup:
        return peak * step / warmup
    if step >= steps:
        return floor
    passed = (step - warmup) / (steps - warmup)
    return floor + (peak - floor) * (1 + math.cos(math.pi * passed)) / 2
