"""Learning-rate schedule: warm-up, constant, decay by a power or a cosine, to zero or a floor."""

import math

from nextword.training.options import TrainingSettings

WARMUP_STEPS = 20
SOFT_FALL = 0.4
"""By which the share of what counting expects falls over a run."""


def rate_factor(step: int, steps: int, settings: TrainingSettings) -> float:
    """Return by what the peak learning rate is multiplied at a step.

    Args:
        step: from 0.
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


def soft_share(begin: float, step: int, steps: int) -> float:
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
