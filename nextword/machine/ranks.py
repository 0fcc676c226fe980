"""Distributed ranks: this process among many; nothing to do when it is alone."""

import os
import time
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from nextword.base.errors import SettingsError

PATIENCE = timedelta(minutes=10)
"""After which a process that does not answer in the middle of a step is taken for lost."""
LOOK_SECONDS = 0.2


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this is."""

    rank: int = 0
    size: int = 1
    device: torch.device | None = None
    """Where the processes' messages lie; default: the CPU."""

    @property
    def is_first(self) -> bool:
        """Only the first process prints and writes."""
        return self.rank == 0

    def share(self, rows: int) -> tuple[int, int]:
        """Return where this process's share of so many rows begins and ends.

        A run may go on with a number of processes that does not divide its rows.

        Raises:
            SettingsError: there are fewer rows than processes.
        """
        if rows < self.size:
            raise SettingsError(
                f"a step of this run reads {rows} rows, which {self.size} processes cannot share; "
                f"start {rows} at most"
            )
        return rows * self.rank // self.size, rows * (self.rank + 1) // self.size

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        """Add a tensor up over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def most(self, *values: float) -> list[float]:
        """Return the greatest of each value among all processes, which all must ask for."""
        if self.size == 1:
            return list(values)
        told = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(told, dist.ReduceOp.MAX)
        values_of_all: list[float] = told.tolist()
        return values_of_all

    def wait(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()

    def wait_for_first(self, what: str) -> None:
        """Wait until the first process comes here too, for as long as that takes: hours, may be.

        Args:
            what: it has done by then; another for each place that calls this.
        """
        if self.size == 1:
            return
        store = dist.distributed_c10d._get_default_store()  # torch has no public way to it
        if self.is_first:
            store.set(what, "done")
        while not store.check([what]):
            time.sleep(LOOK_SECONDS)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return all of a tensor that may be divided among processes; every process must ask.

    The one place where sharded weights and optimizer state enter a checkpoint. (Today only the
    first process saves, and no weight is divided; who divides them must let all of them come here.)
    """
    gather = getattr(tensor, "full_tensor", None)  # of torch's DTensor, as FSDP leaves them
    return tensor if gather is None else gather()


def join_ranks(device: torch.device) -> Ranks:
    """Join the other processes when a launcher such as torchrun started this one; else be alone."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Ranks()
    if not dist.is_initialized():
        from torch.distributed.rendezvous import rendezvous  # torch can be built without

        backend = "nccl" if device.type == "cuda" else "gloo"
        store, rank, size = next(rendezvous("env://", timeout=PATIENCE))
        # torchrun keeps one store through its restarts: without a name of its own a process could
        # read there where one that is dead by now had listened.
        own = f"nextword {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"
        store = dist.PrefixStore(own, store)  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    return Ranks(dist.get_rank(), size, device)
