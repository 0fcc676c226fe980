"""Checks of a run's numbers, a line each."""

from collections.abc import Sequence

from nextword.explanation.checks import Check


def describe_check(check: Check) -> str:
    """Say in a line what a check found."""
    state = ("ok  " if check.checked else "—   ") if check.passed else "FAIL"
    return f"{state}  {check.name:<36}{check.says}"


def describe_verdict(found: Sequence[Check]) -> str:
    """Say how many held."""
    failed = [check.name for check in found if not check.passed]
    unchecked = [check.name for check in found if not check.checked]
    if not failed and unchecked:
        left = "; ".join(unchecked)
        return f"{len(found) - len(unchecked)} of {len(found)} hold; not to be checked: {left}"
    if not failed:
        return f"all {len(found)} hold"
    return f"{len(failed)} of {len(found)} do not hold: {'; '.join(failed)}"
