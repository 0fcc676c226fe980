"""Distributed ranks: this process among many; nothing to do when it is alone."""

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this is."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Only the first process prints and writes."""
        return self.rank == 0

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        """Add a tensor up over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def wait(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()


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
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Ranks(dist.get_rank(), size)
