"""Batches that are read, and brought to the device, before they are asked for."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from nextword.machine.readback import computes_beside

Key = tuple[Any, ...]


class BatchLike(Protocol):
    """A batch: arrays in the order in which the loss takes them."""

    @property
    def num_targets(self) -> float:
        """Count the targets that ask for something, by their weights."""

    def __iter__(self) -> Iterator[Any]:
        """Yield the arrays."""


class Ready(NamedTuple):
    """A step's parts."""

    batches: list[list[Any]]
    """What each holds: arrays on this machine, or tensors on the device; None stays."""
    num_targets: float
    """That ask for something."""
    arrived: "torch.cuda.Event | None" = None
    """When they are on the device."""


class Ahead:
    """What reads the next step's batch while the device computes this one.

    A thread reads and copies, through memory that the system cannot move, on a stream of its own. A
    batch is a function of its step and of what else it is told to depend on; one that was made for
    something else is made again.
    """

    def __init__(
        self, read: Callable[[int, slice], BatchLike], device: torch.device, beside: bool
    ) -> None:
        """Take what reads.

        Args:
            read: returns some rows of a step's batch.
            device: where the network is.
            beside: whether to read ahead.
        """
        self.read, self.device = read, device
        self.thread = ThreadPoolExecutor(1, "batches") if beside else None
        self.made: dict[Key, Future[Ready]] = {}
        self.stream: torch.cuda.Stream | None = None
        if computes_beside(device):
            self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def __enter__(self) -> "Ahead":
        """Begin."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        """End the thread."""
        if self.thread is not None:
            self.thread.shutdown(wait=True, cancel_futures=True)

    def prepare(self, step: int, parts: Sequence[slice], also: Key) -> None:
        """Begin with a step's batch.

        Args:
            step: from 0.
            parts: rows of each part.
            also: what else the batch depends on.
        """
        if self.thread is not None:
            key = _key(step, parts, also)
            self.made = {key: self.thread.submit(self._make, step, parts)}

    def take(self, step: int, parts: Sequence[slice], also: Key) -> Ready:
        """Return a step's batch, as `prepare` takes it; it is made now if it was not."""
        future = self.made.pop(_key(step, parts, also), None)
        ready = self._make(step, parts) if future is None else future.result()
        if ready.arrived is not None:
            now = torch.cuda.current_stream(self.device)
            now.wait_event(ready.arrived)
            for tensor in (one for batch in ready.batches for one in batch if one is not None):
                tensor.record_stream(now)
        return ready

    def _make(self, step: int, parts: Sequence[slice]) -> Ready:
        read = [self.read(step, rows) for rows in parts]
        targets = float(sum(batch.num_targets for batch in read))
        batches = [list(batch) for batch in read]
        if self.stream is None:
            return Ready(batches, targets)
        with torch.cuda.stream(self.stream):
            sent = [[self._sent(array) for array in batch] for batch in batches]
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record(self.stream)
        return Ready(sent, targets, arrived)

    def _sent(self, array: np.ndarray[Any, Any] | None) -> torch.Tensor | None:
        if array is None:
            return None
        return torch.from_numpy(array).pin_memory().to(self.device, non_blocking=True)


def _key(step: int, parts: Sequence[slice], also: Key) -> Key:
    return (step, *((part.start, part.stop) for part in parts), *also)
