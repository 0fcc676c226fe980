"""Weights divided among processes: torch's `fully_shard` (FSDP2), from outside of the network.

Each process holds some rows of every weight, of its gradient and of the optimizer's state. A
layer's weights are gathered before it is computed and let go afterwards; gradients are added up
where they are held. The network knows nothing of it.
"""

from dataclasses import replace

import torch

from nextword.base.errors import SettingsError
from nextword.machine.memory import free_memory
from nextword.machine.ranks import Ranks
from nextword.model.shape import Shape
from nextword.model.transformer import Transformer

HOLDS = {
    "ddp": "each holds all weights",
    "fsdp": "they divide the weights among them",
    "hsdp": "those of each machine divide the weights among them",
}


def divided(asked: str, ranks: Ranks, held: int, device: torch.device) -> Ranks:
    """Say how processes divide a network's weights.

    Args:
        asked: ddp, fsdp, hsdp, or auto.
        ranks: the processes, which all call this.
        held: bytes of weights, gradients and the optimizer's state, whole.
        device: where this one computes.

    Returns:
        the processes, which know it now.

    Raises:
        SettingsError: they cannot be divided so.
    """
    if ranks.size == 1:
        return ranks  # one holds all, whatever it is called
    if asked == "hsdp" and not ranks.are_several_machines:
        raise SettingsError(
            f"machine.parallel = 'hsdp': the {ranks.size} processes run on one machine, or not as "
            "many on each; within one machine choose fsdp"
        )
    if asked != "auto":
        return replace(ranks, parallel=asked, why=f"{HOLDS[asked]}, as was asked for")
    known = free_memory(device)
    mine = float("inf") if known is None else float(known)
    if device.type == "cpu":  # whose memory is that of all processes of its machine
        mine /= ranks.on_machine
    free = -ranks.most(-mine)[0]
    if held <= free:
        return replace(ranks, parallel="ddp", why=f"{HOLDS['ddp']}, which fit")
    within = ranks.are_several_machines and held <= free * ranks.on_machine
    way = "hsdp" if within else "fsdp"
    needed = f"whole they take {held / 1e9:,.2f} GB, and {free / 1e9:,.2f} GB are free for each"
    return replace(ranks, parallel=way, why=f"{HOLDS[way]}; {needed}")


def begin_divided(shape: Shape, ranks: Ranks) -> Transformer:
    """Return a network of which each process holds some rows, with nothing in them yet.

    Nobody ever holds all of it: the weights are to be given one by one.

    Args:
        shape: the network's sizes.
        ranks: the processes, which all call this.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

    device = ranks.device or torch.device("cpu")
    with torch.device("meta"):
        model = Transformer(shape)
    inner = ranks.shares
    sizes = (ranks.size,) if inner == ranks.size else (ranks.size // inner, inner)
    mesh = init_device_mesh(device.type, sizes, mesh_dim_names=("copies", "shares")[-len(sizes) :])
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    register_fsdp_forward_method(model, "hidden")
    model.to_empty(device=device)
    model.model.lay_angles(device)
    # Gathered once here: what is gathered for the first time where no gradient is wanted, as by
    # the first look at a sentence, could never be learned with.
    with torch.inference_mode(mode=False):
        parts = [part for part in model.modules() if isinstance(part, FSDPModule)]
        for part in parts:
            part.unshard()
        for part in parts:
            part.reshard()
    return model
