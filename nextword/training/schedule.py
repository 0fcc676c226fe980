"""Learning-rate schedule: warm-up, constant, decay."""

from nextword.training.options import TrainingSettings

WARMUP_STEPS = 20


def rate_factor(step: int, steps: int, settings: TrainingSettings) -> float:
    """Return by what the peak learning rate is multiplied at a step.

    Args:
        step: from 0.
        steps: of the whole run.
        settings: warm-up and decay.

    Returns:
        a number in (0, 1]: rising linearly, then 1, then falling so that zero would come just after
        the end.
    """
    warmup = settings.warmup_steps
    if warmup is None:
        warmup = min(WARMUP_STEPS, steps // 10)
    factor = min(1.0, (step + 1) / (warmup + 1))
    if settings.decay_share > 0:
        left = (steps - step) / max(steps * settings.decay_share, 1.0)
        factor = min(factor, left ** (settings.decay_power or 1.0))
    return factor
