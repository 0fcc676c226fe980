"""Signals that ask a training to stop or to save, noted to be acted upon where that is safe.

SIGINT (Ctrl-C) and SIGTERM (a machine that is taken away, Slurm, Kubernetes) ask it to stop,
SIGUSR1 to save and go on. A second Ctrl-C stops at once.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


class Broken(Exception):  # noqa: N818 - not an error: somebody asked for it
    """What was under way was left, because a stop was asked for."""

    step: int | None = None
    """Steps that were done before, where it was a step of training."""


class Terminated(KeyboardInterrupt):
    """SIGTERM came where nobody listened: the command ends at once, as on Ctrl-C."""

    number = signal.SIGTERM


_heard: list[int] = []
"""SIGTERM, where it came before anybody listened."""


@contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """End with a word on SIGTERM; outside the main thread, where none arrives, do nothing.

    Where Python throws that away, as in the middle of a `__del__`, a training that begins to listen
    stops at its first step's end.
    """
    _heard.clear()

    def end(number: int, frame: FrameType | None) -> None:
        _heard.append(number)
        raise Terminated

    try:
        before = signal.signal(signal.SIGTERM, end)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        _heard.clear()


@dataclass
class Asked:
    """What was asked for and is not yet done."""

    stop: int | None = None
    """By which signal."""
    save: bool = False
    breakable: bool = False
    """Whether what is under way may be left."""


_listening: list[Asked] = []
_STOP = ("SIGINT", "SIGTERM")
_SAVE = "SIGUSR1"  # there is none on Windows


@contextmanager
def listening() -> Iterator[Asked]:
    """Note signals instead of ending; outside the main thread, where none arrive, do nothing."""
    asked = Asked(stop=_heard[-1] if _heard else None)

    def note(number: int, frame: FrameType | None) -> None:
        if number == getattr(signal, _SAVE, None):
            asked.save = True
        elif asked.stop is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            asked.stop = number

    before = {}
    try:
        for name in (*_STOP, _SAVE):
            if (number := getattr(signal, name, None)) is not None:
                before[number] = signal.signal(number, note)
    except ValueError:  # not the main thread
        yield asked
        return
    _listening.append(asked)
    try:
        yield asked
    finally:
        _listening.remove(asked)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def breakable() -> Iterator[None]:
    """Let what is done here be left when a stop is asked for."""
    for asked in _listening:
        asked.breakable = True
    try:
        yield
    finally:
        for asked in _listening:
            asked.breakable = False


def stopped_by() -> int | None:
    """Return the number of the signal that asked for a stop."""
    return next((asked.stop for asked in _listening if asked.stop is not None), None)


def check_signals() -> None:
    """Leave what is under way, if that is allowed and a stop was asked for; long work calls this.

    Raises:
        Broken: it is to be left.
    """
    if any(asked.breakable and asked.stop is not None for asked in _listening):
        raise Broken
