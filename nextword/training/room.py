"""What a step needs to keep, and how it is made to fit into the memory that is free.

First with fewer rows at once, which changes nothing but how often the network is called; then with
less kept for the gradient and computed a second time, which takes a third more work.

Legend of shapes: T positions, D width, L layers, H heads of queries and of keys, K head width.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch

from nextword.base.errors import SettingsError
from nextword.machine.memory import free_memory
from nextword.model.shape import Shape
from nextword.training.loop import Plan

RECOMPUTE = ("none", "selective", "full")
"""By how much is computed a second time."""


def needs_of_row(
    kept: float, beside: float, shape: Shape, context: int, bytes_a_product: int
) -> dict[str, float]:
    """Foresee the bytes that a row keeps for its gradient, by what is computed a second time.

    Args:
        kept: where nothing is.
        beside: of these, what no layer keeps: of embedding, last norm and loss.
        shape: of the network.
        context: T.
        bytes_a_product: of a number that a matrix product gives.
    """
    layers, width = shape.num_hidden_layers, shape.hidden_size
    # While one layer is computed a second time, all that it keeps is there.
    layer = max(kept - beside, 0.0) / layers
    reads = 4 * context * width
    queries, keys = (
        heads * shape.head_dim for heads in (shape.num_attention_heads, shape.num_key_value_heads)
    )
    # Queries, keys, values, what attention mixes, and the products after it; gate, up and down.
    numbers = 2 * queries + 2 * keys + 2 * width + 2 * shape.intermediate_size
    products = bytes_a_product * context * numbers
    return {
        "none": kept,
        "selective": min(beside + layers * (reads + products) + layer, kept),
        "full": min(beside + layers * reads + layer, kept),
    }


def make_it_fit(
    plan: Plan, needs: Mapping[str, float], free: float, *, rows_are_free: bool
) -> Plan | None:
    """Return a plan whose step fits; None where none does.

    Args:
        plan: as it would be.
        needs: bytes a row keeps, for each way that may be chosen, the fastest first.
        free: bytes, for all rows at once.
        rows_are_free: whether there may be fewer rows at once than the plan has.
    """
    for how, row in needs.items():
        rows = min(plan.micro_rows, int(free / max(row, 1.0)))
        if rows == plan.micro_rows or (rows_are_free and rows >= 1):
            return replace(plan, micro_rows=rows, recompute=how)
    return None


def check_copys_memory(saved: int) -> None:
    """Refuse a run whose copy to be saved, which this machine holds, cannot fit beside a GPU's.

    Raises:
        SettingsError: names what is needed and what is free.
    """
    free = free_memory(torch.device("cpu"))
    if free is not None and saved > free:
        raise SettingsError(
            f"a checkpoint is copied to this machine's memory to be saved, which needs "
            f"{saved / 1e9:,.2f} GB, and {free / 1e9:,.2f} GB are free here; choose a smaller "
            "--model.depth or --model.hidden-size"
        )
