"""What processes really hold in a step, by PyTorch's own record of its memory, beside a rehearsal.

    python -m tests.rehearsed [--keep FILE]

Each process counts what its allocator hands out and takes back while it takes some steps on numbers
that are there; a rehearsal foresaw that for one of them, without any.
"""

import argparse
import contextlib
import itertools
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from nextword.machine.about import versions
from nextword.machine.device import give_back_freed_memory, processor_name
from nextword.machine.ranks import Ranks, join_ranks
from nextword.model.runner import LayerRunner, as_it_stands, keeping_less
from nextword.model.shape import ModelSettings, Shape, resolve_shape
from nextword.model.transformer import Transformer
from nextword.training import exchange
from nextword.training.dividing import begin_divided, meshes_of
from nextword.training.gradients import Gradient, move
from nextword.training.optimizers import build_optimizers, groups_of
from nextword.training.options import TrainingSettings
from nextword.training.rehearsal import Case, pretended, rehearse
from nextword.training.spreading import add_up_copies
from nextword.training.step import LanguageModelLoss, add_gradients, shared_among_processes

DEPTH, WIDTH, ENTRIES, CONTEXT, ROWS, STEPS = 6, 384, 8_000, 256, 16, 2
WAYS = (("ddp", 1), ("ddp", 2), ("fsdp", 2), ("fsdp", 4), ("hsdp", 4), ("tensor", 2),
        ("fsdp-tensor", 4), ("context", 2))  # fmt: skip
TOGETHER = {"tensor": ("ddp", 2, 1), "fsdp-tensor": ("fsdp", 2, 1), "context": ("fsdp", 1, 2),
            "both": ("fsdp", 2, 2)}  # fmt: skip
"""How processes divide weights, how many compute a layer together, how many share a row."""
SHAPE = resolve_shape(
    ModelSettings(depth=DEPTH, hidden_size=WIDTH, num_attention_heads=6, num_key_value_heads=6),
    ENTRIES, CONTEXT,
)  # fmt: skip


def on_machine(way: str, size: int) -> int:
    """Return how many processes are said to be on one machine."""
    return size // 2 if way == "hsdp" else size


def pretended_as(way: str, size: int, here: int) -> contextlib.AbstractContextManager[Ranks]:
    """Be the first of so many processes, that work together in one of the ways."""
    parallel, tensor, context = TOGETHER.get(way, (way, 1, 1))
    return pretended(size, here, parallel, tensor=tensor, context=context)


def foreseen(way: str, size: int, optimizer: str, recompute: str = "none") -> int:
    """Return the bytes that a rehearsal foresees at most."""
    training = TrainingSettings(optimizer=optimizer)
    with pretended_as(way, size, on_machine(way, size)) as ranks:
        told = {"precision": torch.float32, "plain": False}
        (held,) = rehearse(SHAPE, training, ranks, [Case(ROWS, recompute)], **told)
        return held.peak


def measured(way: str, size: int, optimizer: str = "", recompute: str = "none") -> Any:
    """Return the bytes that the first of so many processes really holds at most."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    base = {
        **os.environ, "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo",
        "LOCAL_WORLD_SIZE": str(on_machine(way, size)),
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }  # fmt: skip
    told = json.dumps([way, optimizer, recompute])
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.rehearsed", "--child", told],
            env={**base, "RANK": str(rank), "LOCAL_RANK": str(rank % on_machine(way, size))},
            stdout=subprocess.PIPE, text=True,
        )
        for rank in range(size)
    ]  # fmt: skip
    said = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * size
    return json.loads(said[0])


def peak_of(work: Callable[..., None], *of: Any) -> int:
    """Do some work; return the bytes that PyTorch's allocator had given out for it at most."""
    with torch.profiler.profile(profile_memory=True) as record:
        work(*of)
    found = record.profiler.kineto_results.events()
    changes = sorted((one.start_ns(), one.nbytes()) for one in found if one.name() == "[memory]")
    return max(itertools.accumulate(change for _, change in changes))


def take_steps(shape: Shape, rows: int, ranks: Ranks, optimizer: str, recompute: str) -> None:
    """Take some steps on numbers, as a run does."""
    torch.manual_seed(0)
    meshes = meshes_of(ranks)
    model = begin_divided(shape, ranks, meshes) if ranks.divides_weights else Transformer(shape)
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(0.01)
    if recompute != "none":
        model.model.runner = LayerRunner(keeping_less(as_it_stands, recompute))
    optimizers = build_optimizers(groups_of(model), TrainingSettings(optimizer=optimizer))
    loss = LanguageModelLoss(model, precision=torch.float32)
    ids, device = torch.randint(shape.vocab_size, (rows, shape.context)), torch.device("cpu")
    if ranks.size > 1 and not ranks.divides_weights:
        loss = shared_among_processes(loss, (ids[:1], ids[:1]), device)
    for _ in range(STEPS):
        add_gradients(loss, [(ids, ids)], float(ids.numel()), device, ranks.averages)
        add_up_copies(model)
        move(optimizers, Gradient.of(model, optimizers), 1e-3, 1.0, None)


def let_go() -> None:
    """Give gloo's threads the time to let go of each message within a layer, once it has arrived.

    They have it until they are run again: on two cores, which processes keep busy, up to a tenth of
    all that is held was messages that had long been read.
    """
    arrived = exchange._arrived

    def patiently(x: torch.Tensor) -> torch.Tensor:
        done = arrived(x)
        time.sleep(0.02)
        return done

    exchange._arrived = patiently


def held_messages() -> dict[str, dict[str, float]]:
    """Say how many messages are recorded as held once all have been read, and by how many it grew.

    Of a hundred of each kind that is sent within layers. What gloo's own threads let go of, copies
    that it makes of what is gathered and added up, the record does not see.
    """
    join_ranks(torch.device("cpu"))
    give_back_freed_memory()
    group, x = exchange.Group.of(torch.distributed.group.WORLD), torch.randn(16, 256, 384)
    found = {}
    for name in ("_all", "_own_of_sum", "_swap"):
        kind = getattr(exchange, name)

        def send(kind: Any = kind) -> None:
            for _ in range(100):
                kind(x, group)

        send()  # what is made once
        before = _resident()
        send()
        grew = (_resident() - before) / x.nbytes
        with torch.profiler.profile(profile_memory=True) as record:
            send()
        events = record.profiler.kineto_results.events()
        recorded = sum(one.nbytes() for one in events if one.name() == "[memory]")
        found[name] = {"recorded": round(recorded / x.nbytes, 1), "grew": round(grew, 1)}
    return found


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _child(way: str, optimizer: str, recompute: str) -> None:
    if way == "messages":
        found = held_messages()
        if torch.distributed.get_rank() == 0:
            print(json.dumps(found))
        return
    let_go()
    parallel, tensor, context = TOGETHER.get(way, (way, 1, 1))
    ranks = join_ranks(torch.device("cpu"))
    ranks = replace(ranks, parallel=parallel, tensor=tensor, context=context)
    peak = peak_of(take_steps, SHAPE, ROWS, ranks, optimizer, recompute)
    if ranks.is_first:
        print(peak)


def main() -> None:
    """Compare, print, and keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, help="write the figures here")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--ways", nargs="*", help="these alone; figures of others are kept")
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        _child(*asked.child)
        return
    found = []
    for way, size in (one for one in WAYS if not asked.ways or one[0] in asked.ways):
        for optimizer in ("muon", "adamw"):
            for recompute in ("none", "full") if way == "fsdp" else ("none",):
                of = (way, size, optimizer, recompute)
                each = [measured(*of) for _ in range(asked.repetitions)]
                two = foreseen(*of), round(statistics.median(each))
                found.append({
                    "way": way, "processes": size, "optimizer": optimizer, "recompute": recompute,
                    "foreseen_bytes": two[0], "measured_bytes": two[1], "each": each,
                    "foreseen_beside_measured": round(two[0] / two[1], 4),
                })  # fmt: skip
                print(*of, *two, found[-1]["foreseen_beside_measured"], flush=True)
    messages = measured("messages", 2)
    print("messages held of 100, as recorded, and by which the process grew:", messages)
    if asked.keep:
        if asked.ways and asked.keep.exists():
            known = json.loads(asked.keep.read_text())["found"]
            found = [one for one in known if one["way"] not in asked.ways] + found
        about = {
            "date": time.strftime("%Y-%m-%d"), "processor": processor_name(),
            "versions": versions(), "shape": vars(SHAPE), "rows": ROWS,
        }  # fmt: skip
        told = {**about, "messages": messages, "found": found}
        asked.keep.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
