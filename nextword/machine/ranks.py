"""Distributed ranks: this process among many; nothing to do when it is alone."""

import itertools
import os
import time
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from nextword.base.errors import RunError, SettingsError

PATIENCE = timedelta(minutes=10)
"""After which a process that does not answer in the middle of a step is taken for lost."""
LOOK_SECONDS = 0.2
_WAITED, _MET = itertools.count(), itertools.count()
"""Names in the store are used once: one process may train several runs."""


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this is."""

    rank: int = 0
    size: int = 1
    device: torch.device | None = None
    """Where the processes' messages lie; default: the CPU."""
    on_machine: int = 1
    """How many of them are on one machine, at most."""
    is_even: bool = False
    """Whether each machine has as many, one machine's after the other's."""
    parallel: str = "ddp"
    """What each holds: all weights (ddp), a share of them (fsdp), or a share among those of its
    machine (hsdp)."""
    why: str = ""
    """In words."""
    tensor: int = 1
    """How many compute each layer together, one after the other by number."""
    context: int = 1
    """How many of those groups share the positions of each row."""

    @property
    def divides_weights(self) -> bool:
        """Whether weights are divided: whatever asks the network is done by all at once then."""
        return self.size > 1 and (self.parallel != "ddp" or self.tensor > 1)

    @property
    def averages(self) -> int:
        """By what gradients are divided as they are added up: DDP averages, `fully_shard` adds."""
        return 1 if self.divides_weights else self.size

    @property
    def shares(self) -> int:
        """Into how many shares `fully_shard` divides what a process has of the weights."""
        whole = {"fsdp": self.size, "hsdp": self.on_machine}.get(self.parallel, self.tensor)
        return whole // self.tensor if self.divides_weights else 1

    @property
    def pieces(self) -> int:
        """Into how many pieces the weights are divided in all."""
        return self.shares * self.tensor

    @property
    def together(self) -> int:
        """How many work on the same rows."""
        return self.tensor * self.context

    @property
    def groups(self) -> int:
        """How many read rows of their own: processes, or groups of those that share rows."""
        return self.size // self.together

    @property
    def counts_rows(self) -> bool:
        """Whether this one counts the rows that its group reads."""
        return self.rank % self.together == 0

    @property
    def workers(self) -> int:
        """How many can compute something by themselves: processes, or those that must together."""
        return self.size // self.tensor

    @property
    def worker(self) -> int:
        """Which of them this one is, or belongs to."""
        return self.rank // self.tensor

    @property
    def speaks(self) -> bool:
        """Whether what this one says counts, of those that compute the same."""
        return self.rank % self.tensor == 0

    @property
    def are_several_machines(self) -> bool:
        """Whether there are several, each with as many processes of its own, one by one."""
        return self.is_even and 1 < self.on_machine < self.size

    @property
    def is_first(self) -> bool:
        """Only the first process prints and writes."""
        return self.rank == 0

    def least_share(self, parallel: str, device: torch.device) -> float:
        """Return how much of what a network needs one memory has to hold, divided as can be.

        Args:
            parallel: what was asked for.
            device: a processor's memory is that of all on its machine.
        """
        shares = {"ddp": self.tensor, "hsdp": self.on_machine}.get(parallel, self.size)
        return (self.on_machine if device.type == "cpu" else 1) / shares

    def share(self, rows: int) -> tuple[int, int]:
        """Return where this process's share of so many rows begins and ends.

        A run may go on with a number of processes that does not divide its rows.

        Raises:
            SettingsError: there are fewer rows than processes, or groups of them.
        """
        if rows < self.groups:
            raise SettingsError(
                f"a step of this run reads {rows} rows, which {self.size} processes cannot share; "
                f"start {rows * self.together} at most"
            )
        mine = self.rank // self.together
        return rows * mine // self.groups, rows * (mine + 1) // self.groups

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

    def agree(self, what: str, value: float) -> None:
        """Refuse to go on where processes do not see the same, which all must ask for.

        Raises:
            RunError: they do not; says what.
        """
        most, least = self.most(value, -value)
        if most != -least:
            raise RunError(
                f"the processes see different {what} ({-least:g} and {most:g}): the disk shows "
                "them late on one of the machines; start them again"
            )

    def wait(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()

    def wait_for_first(self, what: str) -> None:
        """Wait until the first process comes here too, for as long as that takes: hours, may be.

        Args:
            what: it has done by then.
        """
        if self.size == 1:
            return
        what = f"{what} {next(_WAITED)}"
        store = dist.distributed_c10d._get_default_store()  # torch has no public way to it
        if self.is_first:
            store.set(what, "done")
        while not store.check([what]):
            time.sleep(LOOK_SECONDS)


class Meeting:
    """Where threads of processes that divide their work wait for each other.

    Through the processes' store: what they tell each other otherwise belongs to the thread that
    trains. Where each does its work alone, nobody waits.
    """

    def __init__(self, ranks: Ranks) -> None:
        """Call it; where work is divided each process calls as many.

        Args:
            ranks: the processes, each of which comes with one thread.
        """
        self.ranks = ranks
        self.name = f"meeting {next(_MET)}" if ranks.divides_weights else ""
        self._is_given_up = False

    def come(self, to: str, times: int = 1) -> None:
        """Wait until all others have come to the same.

        Args:
            to: what.
            times: by how much longer than in the middle of a step.

        Raises:
            RunError: one of them could not.
            DistError: one of them does not answer.
        """
        if not self.ranks.divides_weights:
            return
        self._say(to)
        self._wait_for_all(to, times)

    def part(self) -> None:
        """Leave; the first, with whom the store may end, when all others have left.

        Raises:
            RunError: one of them could not come.
        """
        if not self.ranks.divides_weights:
            return
        self._say("gone")
        if self.ranks.is_first:
            self._wait_for_all("gone", 1)

    def _say(self, what: str) -> None:
        dist.distributed_c10d._get_default_store().set(self._key(what, self.ranks.rank), "yes")

    def _wait_for_all(self, to: str, times: int) -> None:
        store, since = dist.distributed_c10d._get_default_store(), time.monotonic()
        for rank in range(self.ranks.size):
            while not store.check([self._key(to, rank)]):
                if store.check([self._key("mistake")]):
                    raise RunError(store.get(self._key("mistake")).decode())
                if self._is_given_up:
                    raise dist.DistError(f"process {rank} does not come any more to: {to}")
                if time.monotonic() - since > times * PATIENCE.total_seconds():
                    raise dist.DistError(f"process {rank} has not come to: {to}")
                time.sleep(LOOK_SECONDS / 10)

    def call_off(self, mistake: str) -> None:
        """Let nobody wait any longer, and tell all why."""
        if self.ranks.divides_weights:
            dist.distributed_c10d._get_default_store().set(self._key("mistake"), mistake)

    def give_up(self) -> None:
        """Wait for nobody any longer: one of the others is known to have ended."""
        self._is_given_up = True

    def _key(self, what: str, rank: int | None = None) -> str:
        return f"{self.name}: {what}" + ("" if rank is None else f" {rank}")


def join_ranks(device: torch.device) -> Ranks:
    """Join the other processes when a launcher such as torchrun started this one; else be alone."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Ranks()
    if device.type == "cuda":
        torch.cuda.set_device(device)  # where PyTorch lays what it divides among processes
    if not dist.is_initialized():
        from torch.distributed.rendezvous import rendezvous  # torch can be built without

        backend = {"cuda": "nccl", "xpu": "xccl"}.get(device.type, "gloo")
        store, rank, size = next(rendezvous("env://", timeout=PATIENCE))
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            # One store through all restarts: without a name of its own a process could read there
            # where one that is dead by now had listened.
            own = f"nextword {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"
            store = dist.PrefixStore(own, store)  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    rank = dist.get_rank()
    here = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    misplaced = int(os.environ.get("LOCAL_RANK", rank % here)) != rank % here
    most, least, any_misplaced = Ranks(rank, size, device).most(here, -here, misplaced)
    is_even = most == -least and size % here == 0 and not any_misplaced
    return Ranks(rank, size, device, int(most), is_even)
