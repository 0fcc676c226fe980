"""What a run would take and come to, in words for a terminal."""

from nextword.explanation.forecast import Forecast
from nextword.rendering.progress import duration

UNITS = ("bytes", "kB", "MB", "GB", "TB")


def describe_forecast(found: Forecast, rate: float | None = None) -> str:
    """Say what is foreseen, and what would be on another device.

    Args:
        found: the forecast.
        rate: operations a second that another device really does, in TFLOP/s.
    """
    words = {0: "", 1: " and its teacher's"}
    and_theirs = words.get(found.teachers, f" and its {found.teachers} teachers'")
    lines = [
        "",
        f"Foreseen, from steps on weights that were thrown away ({found.step_seconds:.3g} s each):",
        f"time        {duration(found.seconds)} from the first step to the end",
        "memory      "
        + (
            "this system does not tell"
            if found.memory_bytes is None
            else f"{amount(found.memory_bytes)} at most"
        ),
        f"disk        {amount(found.disk_bytes)} at most, in the run's folder{and_theirs}",
        f"work        {found.tokens:,} tokens, {found.flops:.3g} operations{and_theirs}",
    ]
    if rate is not None:
        lines.append(
            f"elsewhere   {duration(found.flops / (rate * 1e12))} of steps where {rate:g} TFLOP/s "
            "are really done"
        )
    if found.expected is not None:
        least, likely, most = found.expected
        why = (
            "the least possible on this text is known"
            if found.floor is not None
            else f"counting needs {found.counted:.3f}, and the default ended so far from it on "
            "other texts of this size"
        )
        lines.append(f"loss        about {likely:.3f} bits/byte, {least:.3f} to {most:.3f}: {why}")
    elif found.counted is not None:
        lines.append(
            "loss        not known for these settings; counting needs "
            f"{found.counted:.3f} bits/byte"
        )
    return "\n".join(lines)


def amount(num_bytes: float) -> str:
    """Say a number of bytes with a unit."""
    unit = 0
    while num_bytes >= 999.5 and unit + 1 < len(UNITS):
        num_bytes, unit = num_bytes / 1000, unit + 1
    return f"{num_bytes:.3g} {UNITS[unit]}"
