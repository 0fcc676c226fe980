"""Save while training goes on: a copy is taken, and a thread writes it.

At most one is on its way; whoever wants to save again before it has arrived waits. What goes wrong
in the thread is raised where the loop saves next, or at its end.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Taken = TypeVar("Taken")


class Saver:
    """Takes copies and has them written, one after the other."""

    def __init__(self) -> None:
        """Begin with none."""
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="saver")
        self._pending: Future[int] | None = None
        self.saves = 0
        self.bytes = 0
        """Written in all."""
        self.lost = 0.0
        """Seconds for which training waited."""
        self.taken = 0.0
        """Seconds that taking and writing took, whoever waited."""

    def save(self, take: Callable[[], Taken], write: Callable[[Taken], int]) -> None:
        """Take a copy now and write it meanwhile.

        Args:
            take: copies what is to be saved.
            write: brings a copy to the disk, in a thread; returns its bytes.

        Raises:
            Exception: what the save before this one met.
        """
        self.finish()
        began = time.monotonic()
        copy = take()
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
