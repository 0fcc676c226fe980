"""Save while training goes on: a copy is taken, and a thread writes it.

At most one is on its way; whoever wants to save again before it has arrived waits. What goes wrong
in the thread is raised where the loop saves next, or at its end.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from nextword.machine.ranks import LOOK_SECONDS, Meeting, Ranks

Taken = TypeVar("Taken")


def _step_back() -> None:
    """Let this thread compute only where training leaves a core idle, on systems that know how."""
    if sys.platform == "linux":  # there a thread has a priority of its own
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LEAST)


LEAST = 19
"""Priority: the lowest."""


class Saver(Generic[Taken]):
    """Takes copies and has them written, one after the other."""

    def __init__(self) -> None:
        """Begin with none."""
        self._threads = ThreadPoolExecutor(1, "saver", initializer=_step_back)
        self._pending: Future[int] | None = None
        self._copy: Taken | None = None
        self.meeting: Meeting | None = None
        """Where those who write the last one together wait for each other."""
        self.saves = 0
        self.bytes = 0
        """Written in all."""
        self.lost = 0.0
        """Seconds for which training waited."""
        self.taken = 0.0
        """Seconds that taking and writing took, whoever waited."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing is on its way."""
        return self._pending is None or self._pending.done()

    def save(self, take: Callable[[Taken | None], Taken], write: Callable[[Taken], int]) -> None:
        """Take a copy now and write it meanwhile.

        Args:
            take: copies what is to be saved, over the copy before this one, if there was one.
            write: brings a copy to the disk, in a thread; returns its bytes.

        Raises:
            Exception: what the save before this one met.
        """
        self.finish()
        began = time.monotonic()
        self._copy = copy = take(self._copy)
        spent = time.monotonic() - began
        self.lost += spent
        self.taken += spent
        self.saves += 1
        self._pending = self._threads.submit(self._write, write, copy)

    def _write(self, write: Callable[[Taken], int], copy: Taken) -> int:
        began = time.monotonic()
        size = write(copy)
        self.taken += time.monotonic() - began
        return size

    def wait_for_all(self, ranks: Ranks) -> None:
        """Wait until all processes that divide the weights have written theirs.

        By asking each other, so that it is noticed at once if one of them has died, whom whoever
        writes would wait for.

        Raises:
            RuntimeError: one of them does not answer.
        """
        if ranks.divides_weights:
            while any(ranks.most(not self.is_idle)):
                time.sleep(LOOK_SECONDS / 10)

    @contextlib.contextmanager
    def arriving(self, ranks: Ranks) -> Iterator[None]:
        """Let what is saved meanwhile arrive, however that ends.

        Args:
            ranks: the processes, which all do the same.

        Raises:
            Exception: what the last save met.
        """
        try:
            yield
            self.wait_for_all(ranks)
        except RuntimeError:  # another process has ended: nobody waits for what it had to write
            if self.meeting is not None:
                self.meeting.give_up()
            raise
        finally:
            self.finish()

    def finish(self) -> None:
        """Wait until all is on the disk.

        Raises:
            Exception: what the last save met.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            began = time.monotonic()
            try:
                self.bytes += pending.result()
            finally:
                self.lost += time.monotonic() - began
