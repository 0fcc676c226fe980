"""Several processes, each of which does some commands one after the other, watched while they do.

    python -m tests.several '[["train", "--name", "it", …], …]'

They find each other as torchrun's would. What is told by the environment, in one process or all:
PATIENCE (seconds), FREE (bytes of memory that are said to be free), HOW and AT (the second process
dies, or finds no room, as it writes its rows for the AT-th time), UNLIKE (a later process times
steps for longer than an earlier one), FILE (bytes of weights that one file may hold), COUNTED (say
how many graphs were compiled), UPTO (a step at
which all are asked to stop; as a run is, in bfloat16), SENT (a file for what
each step sends, and what is held), IDLE (a file for who waits; as a run is).
"""

import datetime
import errno
import json
import os
import resource
import signal
import socket
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode

from tests.forked import fork_server
from tests.place import Place

ROLLBACK, POISONED = "--training.on-nan=rollback", {13}


def together(
    place: Place, count: int, *commands: Sequence[str], on_machine: int | None = None, **more: str
) -> list[tuple[int, str]]:
    """Do some commands in so many processes; return with which status each ended, and its words.

    Args:
        place: where.
        count: how many.
        *commands: one after the other.
        on_machine: how many are said to be on one machine; default: all.
        **more: of the environment.
    """
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    base = {
        **place.environment(), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo",
        "LOCAL_WORLD_SIZE": str(on_machine or count), **more,
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }  # fmt: skip
    here, children = on_machine or count, []
    try:
        for rank in range(count):
            own = {**base, "RANK": str(rank), "LOCAL_RANK": str(rank % here)}
            given = [json.dumps(commands)]
            children.append(fork_server().watch("tests.several", given, place.folder, own))
        said = [child.communicate(timeout=120 * count)[1] for child in children]
    finally:
        for child in children:
            child.send_signal(signal.SIGKILL)
        for child in children:
            child.kill()
    return [(child.returncode, words) for child, words in zip(children, said, strict=True)]


def all_well(ended: Sequence[tuple[int, str]]) -> str:
    """Return what the first said, where all ended well."""
    assert [status for status, _ in ended] == [0] * len(ended), "\n\n".join(w for _, w in ended)
    return ended[0][1]


class Sent(TorchDispatchMode):
    """Counts the bytes that this process sends to others, as rings of processes would."""

    def __init__(self) -> None:
        """Begin with none."""
        super().__init__()
        self.bytes: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Look at each operation between processes."""
        kind, _, name = func.name().partition("::")
        name = name.partition(".")[0].strip("_")
        if kind == "c10d":
            self.bytes[name] += SIZES[name](args)
        elif kind == "_c10d_functional" and name in WITHIN_LAYERS:
            self.bytes[name] += WITHIN_LAYERS[name](args)
        return func(*args, **(kwargs or {}))


def _others(group: Any) -> tuple[int, int]:
    size = dist.ProcessGroup.unbox(group).size()
    return size - 1, size


def _across(args: Any) -> int:
    _, read, group, _, splits = args[:5]
    own = splits[dist.ProcessGroup.unbox(group).rank()]
    return read.nbytes - own * read.element_size()


SIZES: dict[str, Callable[[Any], int]] = {
    "allgather_base": lambda args: args[1].nbytes * _others(args[2])[0],
    "reduce_scatter_base": lambda args: args[0].nbytes * _others(args[2])[0],
    "allreduce": lambda args: 2 * args[0][0].nbytes * _others(args[1])[0] // _others(args[1])[1],
    "broadcast": lambda args: args[0][0].nbytes * _others(args[1])[0] // _others(args[1])[1],
    "alltoall_base": _across,
}


WITHIN_LAYERS: dict[str, Callable[[Any], int]] = {
    "all_gather_into_tensor": lambda args: args[0].nbytes * (args[1] - 1),
    "reduce_scatter_tensor": lambda args: args[0].nbytes * (args[2] - 1) // args[2],
    "all_to_all_single": lambda args: args[0].nbytes * (len(args[1]) - 1) // len(args[1]),
}
"""The same of what processes that compute a layer together, or share a row, send in its middle."""


def watch_steps(file: str) -> None:
    """Write down what each training sends a step, and what of weights and state it holds."""
    from nextword.machine.parts import own_rows, resting_weights
    from nextword.training import loop

    sent, steps = Sent(), [0]
    gradients, move, run_loop = loop._gradients, loop._move, loop.run_loop

    def watched(training: Any, *given: Any) -> Any:
        with sent:
            return gradients(training, *given)

    def moved(training: Any, *given: Any) -> Any:
        steps[0] += 1
        with sent:
            return move(training, *given)

    def told(training: Any, *given: Any) -> Any:
        sent.bytes.clear()
        steps[0] = 0
        state = run_loop(training, *given)
        held = [own_rows(weight) for _, weight in resting_weights(training.model)]
        kept = [
            value
            for optimizer in training.optimizers
            for values in optimizer.state.values()
            for value in values.values()
        ]
        words = {
            "rank": training.ranks.rank,
            "sent": {name: count / steps[0] for name, count in sent.bytes.items()},
            "weights": sum(one.nbytes for one in held),
            "state": sum(one.nbytes for one in kept),
            "peak": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        }
        with open(file, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(words) + "\n")
        return state

    from nextword import fit

    loop._gradients, loop._move, fit.run_loop = watched, moved, told


def fail_while_saving(how: str, at: int) -> None:
    """Let this process die, or find no room, as it writes its rows for the `at`-th time."""
    from nextword.machine import copies

    write_rows, times = copies.Copies.write_rows, [0]

    def written_or_not(self: Any, *given: Any) -> None:
        times[0] += 1
        if times[0] == at:
            if how == "dies":
                os._exit(9)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_rows(self, *given)

    copies.Copies.write_rows = written_or_not


def stop_at(step: str) -> None:
    """Ask training to stop, as SIGTERM does, at a step."""
    from nextword import fit
    from nextword.training.loop import Callback, TrainerState

    stops = fit.stop_when_asked

    def stop(run: Any, asked: Any, save: Any) -> Callback:
        asks = stops(run, asked, save)

        def act(state: TrainerState) -> None:
            if state.step == int(step):
                asked.stop = signal.SIGTERM
            asks.action(state)

        return Callback(1, act, when="at once")

    fit.stop_when_asked = stop


def arrange(told: Mapping[str, str]) -> None:
    """Do what the environment asks for."""
    from nextword import forecast
    from nextword.machine import ranks
    from nextword.model import folder
    from nextword.training import dividing
    from nextword.training.optimizers import muon
    from tests.idle import watch_waits

    torch.set_num_threads(1)
    for name, does in (("SENT", watch_steps), ("UPTO", stop_at), ("IDLE", watch_waits)):
        if name in told:
            does(told[name])
    if not {"UPTO", "IDLE"} & set(told):
        muon.has_bfloat16 = lambda device: False  # whose rounding would hide what is looked for
    if "PATIENCE" in told:
        ranks.PATIENCE = datetime.timedelta(seconds=float(told["PATIENCE"]))
    if "FREE" in told:
        dividing.free_memory = lambda device: int(told["FREE"])
    if "HOW" in told and told["RANK"] == "1":
        fail_while_saving(told["HOW"], int(told["AT"]))
    if "UNLIKE" in told:
        forecast.LEAST_SECONDS *= 1 + 2 * int(told["RANK"])
    if "FILE" in told:
        folder.MOST_FILE_BYTES = int(told["FILE"])


def main(commands: Sequence[Sequence[str]]) -> int:
    """Do the commands; return the first status that is not 0."""
    from nextword.cli import main as do
    from tests.training.poisoned import poison

    warnings.simplefilter("ignore")
    arrange(os.environ)
    status = 0
    for words in commands:
        if ROLLBACK in words:
            poison(POISONED)
        try:
            do(list(words))
        except SystemExit as left:
            status = status or int(left.code or 0)
    return status


def say_how_many_graphs() -> None:
    """Say how many the compiler has made."""
    from torch._dynamo.utils import counters

    sys.stderr.write(f"graphs that were compiled: {counters['stats']['unique_graphs']}\n")


if __name__ == "__main__":
    ended = main(json.loads(sys.argv[1]))
    if "COUNTED" in os.environ:
        say_how_many_graphs()
    sys.stderr.flush()
    os._exit(ended)  # gloo's threads may still be ending, which aborts an orderly exit now and then
