"""Checks of a run's numbers, a line each."""

from collections.abc import Sequence

from nextword.explanation.checks import Check


def describe_check(check: Check) -> str:
    """Say in a line what a check found."""
    return f"{'ok  ' if check.passed else 'FAIL'}  {check.name:<36}{check.says}"


def describe_verdict(found: Sequence[Check]) -> str:
    """Say how many held."""
    failed = [check.name for check in found if not check.passed]
    if not failed:
        return f"all {len(found)} hold"
    return f"{len(failed)} of {len(found)} do not hold: {'; '.join(failed)}"
