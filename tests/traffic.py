"""Count what processes that train together send each other, beside what it should come to.

    python -m tests.traffic [--large] [--keep FILE]

One to four processes, each way of dividing the weights, both optimizers: bytes that a process sends
in a step, counted at each operation between processes, as rings of processes would send them; and
what it holds between two steps. With --large also the most memory that a process of one, two and
four ever had, with a network of 57 million weights and what is saved of it.
"""

import argparse
import json
import math
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from nextword.machine.about import versions
from nextword.machine.device import processor_name
from nextword.model.folder import read_shape
from nextword.model.shape import Shape
from nextword.training.checkpoint import list_checkpoints
from tests.place import Place
from tests.several import all_well, together

TOKENS = 768
OPTIONS = (
    "--training.steps=5", f"--training.batch-tokens={TOKENS}", "--model.depth=4",
    "--model.context=32", "--model.hidden-size=96", "--corpus.stories=120",
    "--machine.precision=float32",
)  # fmt: skip
WAYS = (("ddp", 2), ("ddp", 3), ("ddp", 4), ("fsdp", 2), ("fsdp", 3), ("fsdp", 4), ("hsdp", 4))


def expected(shapes: Mapping[str, Sequence[int]], way: str, size: int, optimizer: str) -> float:
    """Return the bytes that a process sends in a step, in float32, on average.

    All gradients are added up (twice the others' share of them), or: weights are gathered, those
    of layers a second time for the gradient, and gradients are added up where they are held. Muon
    sends each matrix it has made orthogonal to all, or its own rows there and back.
    """
    inner = {"ddp": 1, "fsdp": size, "hsdp": 2}[way]
    others = (inner - 1) / inner
    total = 0.0
    for name, shape in shapes.items():
        rows, row = shape[0], math.prod(shape[1:])
        held = -(-rows // inner) * row  # the last processes may hold less, and send as much
        whole = 4 * rows * row
        if way == "ddp":
            total += 2 * whole * (size - 1) / size
        else:
            times = 3 if ".layers." in name else 2
            total += times * 4 * held * (inner - 1)
        if way == "hsdp":
            total += 2 * 4 * held * (size // inner - 1) / (size // inner)
        if optimizer == "muon" and len(shape) == 2 and ".layers." in name:
            total += whole * (size - 1) / size if way == "ddp" else 2 * whole / inner * others
    return total


TOGETHER = {
    "tensor": (2, "ddp", 2, 1), "context": (2, "fsdp", 1, 2), "fsdp-tensor": (4, "fsdp", 2, 1),
    "both": (4, "fsdp", 2, 2),
}  # fmt: skip
"""Processes, how they divide weights, and how many compute a layer together or share a row."""
HEADS = ("--model.num-attention-heads=4", "--model.num-key-value-heads=4")


def expected_together(
    shapes: Mapping[str, Sequence[int]], way: str, optimizer: str, shape: Shape, tokens: int
) -> float:
    """Return what a process sends in a step where several work on the same rows, in float32.

    Args:
        shapes: of the weights.
        way: of `TOGETHER`.
        optimizer: muon or adamw.
        shape: the network's sizes.
        tokens: that its group reads in a step.
    """
    size, parallel, tensor, context = TOGETHER[way]
    pieces = size if parallel == "fsdp" else tensor
    inner, total = pieces // tensor, 0.0
    for name, sizes in shapes.items():
        numbers, is_layers = math.prod(sizes), ".layers." in name
        if not is_layers:
            held = -(-sizes[0] // pieces) * math.prod(sizes[1:])
            total += 2 * 4 * held * (pieces - 1)
            continue
        mine = numbers / tensor if len(sizes) == 2 else numbers
        total += 3 * 4 * mine / inner * (inner - 1)
        if len(sizes) == 1:  # a vector, whose gradients are added up
            total += 2 * 4 * mine / inner * (tensor - 1) / tensor
        elif optimizer == "muon":
            total += 2 * 4 * numbers / pieces * (pieces - 1) / pieces
    # A layer's halves gather positions and hand them out, forward and backward; attention swaps.
    positions = tokens / context
    together = 4 * positions * shape.hidden_size * (tensor - 1) / tensor
    heads = 2 * (shape.num_attention_heads + shape.num_key_value_heads) / tensor
    swapped = positions * heads * shape.head_dim * (context - 1) / context
    return total + 4 * shape.num_hidden_layers * 2 * (together + swapped)


def measure(place: Place, way: str, size: int, optimizer: str) -> dict[str, Any]:
    """Train a little, and return what was sent and held."""
    name, file = f"{way}-{size}-{optimizer}", place.folder / "sent"
    words = ["train", "--name", name, *OPTIONS, f"--training.optimizer={optimizer}"]
    _, parallel, tensor, context = TOGETHER.get(way, (size, way, 1, 1))
    words.append(f"--machine.parallel={parallel}")
    if way in TOGETHER:
        words += [*HEADS, f"--machine.tensor={tensor}", f"--machine.context={context}"]
    all_well(together(place, size, words, on_machine=2 if way == "hsdp" else None, SENT=str(file)))
    told = [json.loads(line) for line in file.read_text().splitlines()]
    file.unlink()
    last = list_checkpoints(place.folder / "runs" / name)[-1].folder
    shapes = {
        name: list(value.shape) for name, value in load_file(last / "model.safetensors").items()
    }
    counted = sum(sum(one["sent"].values()) for one in told) / size
    if way in TOGETHER:
        facts = read_shape(last)
        formula = expected_together(
            shapes, way, optimizer, facts, TOKENS * context * tensor // size
        )
    else:
        formula = expected(shapes, way, size, optimizer)
    held = max(one["weights"] + one["state"] for one in told)
    return {
        "way": way, "processes": size, "optimizer": optimizer,
        "weights_bytes": sum(4 * math.prod(shape) for shape in shapes.values()),
        "held_bytes": held, "sent_bytes": round(counted), "formula_bytes": round(formula),
        "beside_formula": counted / formula,
    }  # fmt: skip


LARGE = (
    "--training.steps=2", "--training.batch-tokens=512", "--training.micro-batch-tokens=128",
    "--model.depth=8", "--model.context=128", "--model.hidden-size=768", "--corpus.stories=120",
    "--machine.precision=float32", "--training.optimizer=adamw", "--machine.parallel=fsdp",
)  # fmt: skip


def measure_peak(place: Place, size: int) -> dict[str, Any]:
    """Train a large network a little; return the most memory that one of the processes had."""
    file = place.folder / "sent"
    all_well(together(place, size, ["train", "--name", f"large-{size}", *LARGE], SENT=str(file)))
    told = [json.loads(line) for line in file.read_text().splitlines()]
    file.unlink()
    shutil.rmtree(place.folder / "runs" / f"large-{size}")
    held = max(one["weights"] + one["state"] for one in told)
    return {"processes": size, "held_bytes": held, "peak_bytes": max(one["peak"] for one in told)}


def main() -> None:
    """Count, print, and keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, help="write the figures here")
    parser.add_argument("--large", action="store_true", help="also memory, of many weights")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder))
        found = [
            measure(place, way, size, optimizer)
            for way, size in (*WAYS, *((way, told[0]) for way, told in TOGETHER.items()))
            for optimizer in ("muon", "adamw")
        ]
        large = [measure_peak(place, size) for size in (1, 2, 4) if asked.large]
    for one in large:
        print(f"{one['processes']}  peak {one['peak_bytes'] / 1e9:.2f} GB")
    for one in found:
        print(
            f"{one['way']} {one['processes']} {one['optimizer']:5}  holds {one['held_bytes']:>9,}  "
            f"sends {one['sent_bytes']:>9,}  formula {one['beside_formula']:.4f}"
        )
    if asked.keep:
        about = {
            "date": time.strftime("%Y-%m-%d"), "processor": processor_name(),
            "versions": versions(), "torch": torch.__version__, "options": OPTIONS,
        }  # fmt: skip
        asked.keep.write_text(
            json.dumps({**about, "found": found, "large": large}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
