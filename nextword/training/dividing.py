"""Weights divided among processes: torch's `fully_shard` (FSDP2), from outside of the network.

Each process holds some rows of every weight, of its gradient and of the optimizer's state. A
layer's weights are gathered before it is computed and let go afterwards; gradients are added up
where they are held. The network knows nothing of it.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.distributed as dist

from nextword.base.errors import SettingsError
from nextword.machine.device import give_back_freed_memory
from nextword.machine.memory import free_memory
from nextword.machine.options import MachineSettings
from nextword.machine.parts import mark
from nextword.machine.ranks import Ranks
from nextword.model.shape import Shape
from nextword.model.transformer import Transformer
from nextword.training.options import TrainingSettings
from nextword.training.plan import bytes_held
from nextword.training.spreading import cut_layers, spread_rows

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

ROOM = 1.25
"""Of what weights, gradients and state take, for a step beside them and what is sent."""
HOLDS = {
    "ddp": "each holds all weights",
    "fsdp": "they divide the weights among them",
    "hsdp": "those of each machine divide the weights among them",
}
TOGETHER_HOLD = "those who compute a layer together hold all weights"
GROUPS = {
    "tensor": "; {} at a time compute each layer together",
    "context": "; {} at a time share the positions of each row",
}


def arranged(ranks: Ranks, settings: MachineSettings) -> Ranks:
    """Let processes compute layers together, and share rows.

    Args:
        ranks: all of them.
        settings: say how many.

    Raises:
        SettingsError: there are not as many, or not on one machine.
    """
    tensor, context = settings.tensor, settings.context
    together = tensor * context
    if ranks.size % together:
        asked = [f"machine.{name} = {number}" for name, number in
                 (("tensor", tensor), ("context", context)) if number > 1]  # fmt: skip
        raise SettingsError(
            f"{' and '.join(asked)}: {ranks.size} "
            f"process{'es' if ranks.size > 1 else ''} cannot be divided into groups of {together}; "
            "start a multiple (--processes, or torchrun), or choose others"
        )
    if ranks.on_machine % tensor and ranks.size > 1:
        raise SettingsError(
            f"machine.tensor = {tensor}: the {ranks.on_machine} processes of a machine cannot be "
            f"divided into groups of {tensor}, and such a group talks too much for a network"
        )
    return replace(ranks, tensor=tensor, context=context)


def check_heads(shape: Shape, ranks: Ranks) -> None:
    """Refuse a network whose heads or inner width cannot be divided so.

    Raises:
        SettingsError: names what cannot.
    """
    queries, keys = shape.num_attention_heads, shape.num_key_value_heads
    for number, what in ((keys, "heads of keys"), (shape.intermediate_size, "inner width")):
        if number % ranks.tensor:
            raise SettingsError(
                f"machine.tensor = {ranks.tensor}: the network's {what} ({number}) cannot be "
                f"divided by it; choose another number, or other sizes of the network"
            )
    heads, mine = queries // ranks.tensor, keys // ranks.tensor
    if heads % ranks.context or (mine % ranks.context and ranks.context % mine):
        of_each = f", of which each of {ranks.tensor} has {heads} and {mine}" * (ranks.tensor > 1)
        raise SettingsError(
            f"machine.context = {ranks.context}: {queries} heads of queries and {keys} of "
            f"keys{of_each} cannot be shared out among so many"
        )


def choose_division(
    asked: str,
    ranks: Ranks,
    shape: Shape,
    training: TrainingSettings,
    device: torch.device,
    before: Mapping[str, Any] | None = None,
) -> Ranks:
    """Say how processes divide a network's weights.

    Args:
        asked: ddp, fsdp, hsdp, or auto.
        ranks: the processes, which all call this.
        shape: of the network.
        training: says the optimizer, whose state counts.
        device: where this one computes.
        before: facts of the run, where it goes on: as many processes divide them as they did.

    Returns:
        the processes, which know it now.

    Raises:
        SettingsError: they cannot be divided so.
    """
    if ranks.size == 1:
        return ranks  # one holds all, whatever it is called
    chosen = _choose(asked, ranks, shape, training, device, before)
    groups = {name: getattr(chosen, name) for name in GROUPS}
    more = "".join(GROUPS[name].format(n) for name, n in groups.items() if n > 1)
    return replace(chosen, why=chosen.why + more)


def _choose(
    asked: str,
    ranks: Ranks,
    shape: Shape,
    training: TrainingSettings,
    device: torch.device,
    before: Mapping[str, Any] | None,
) -> Ranks:
    """Say what processes hold of a network's weights, beside who computes what together."""
    if asked == "hsdp" and not ranks.are_several_machines:
        raise SettingsError(
            f"machine.parallel = 'hsdp': the {ranks.size} processes run on one machine, or not as "
            "many on each; within one machine choose fsdp"
        )
    holds = HOLDS | ({"ddp": TOGETHER_HOLD} if ranks.tensor > 1 else {})
    way = before and before.get("parallel")
    now = {"processes": ranks.size, "tensor": ranks.tensor, "context": ranks.context}
    alike = before and now == {name: before.get(name, 1) for name in now}
    if asked == "auto" and alike and way in HOLDS:
        return replace(ranks, parallel=way, why=f"{holds[way]}, as before")
    if asked != "auto":
        return replace(ranks, parallel=asked, why=f"{holds[asked]}, as was asked for")
    held = bytes_held(shape, training, device) / ranks.tensor
    free = free_for_each(ranks, device)
    if ROOM * held <= free:
        return replace(ranks, parallel="ddp", why=f"{holds['ddp']}, which fit")
    within = ranks.are_several_machines and held * ranks.tensor <= free * ranks.on_machine
    way = "hsdp" if within else "fsdp"
    whole = held * ranks.tensor / 1e9
    needed = f"whole they take {whole:,.2f} GB, and {free / 1e9:,.2f} GB are free for each"
    return replace(ranks, parallel=way, why=f"{holds[way]}; {needed}")


def free_for_each(ranks: Ranks, device: torch.device) -> float:
    """Return the bytes that are free for the process that has least; infinity where nobody knows.

    Args:
        ranks: the processes, which all call this.
        device: where this one computes; a processor's memory is that of all on its machine.
    """
    known = free_memory(device)
    mine = float("inf") if known is None else float(known)
    if device.type == "cpu":
        mine /= ranks.on_machine
    return -ranks.most(-mine)[0]


def gathered_bytes(shape: Shape, ranks: Ranks) -> int:
    """Return what embedding and head take while a step needs them whole, beside their shares.

    Their weights, the gradient, and what is sent of it.
    """
    tables = 1 if shape.tie_word_embeddings else 2
    return 3 * 4 * tables * shape.vocab_size * shape.hidden_size if ranks.divides_weights else 0


class Meshes(NamedTuple):
    """How processes stand to each other."""

    layers: "DeviceMesh | None" = None
    """Among whom the weights of layers are divided: copies of shares, or shares alone."""
    rest: "DeviceMesh | None" = None
    """The same of all others, which who computes a layer together divides among itself too."""
    tensor: "dist.ProcessGroup | None" = None
    """Who computes each layer together with this one."""
    context: "dist.ProcessGroup | None" = None
    """Who shares this one's rows, of those that do not."""

    @property
    def sharers(self) -> "dist.ProcessGroup":
        """Among whom weights are divided in all."""
        assert self.rest is not None
        group: dist.ProcessGroup = self.rest.get_group(self.rest.ndim - 1)
        return group


def meshes_of(ranks: Ranks) -> Meshes:
    """Lay processes out: who holds copies, who shares, who computes together."""
    kind = "cpu" if ranks.device is None else ranks.device.type
    context = layers = rest = tensor = None
    if ranks.context > 1:
        rows = _mesh(kind, rows=ranks.groups, context=ranks.context, tensor=ranks.tensor)
        context = rows.get_group("context")
    if ranks.divides_weights:
        inner, copies = ranks.pieces, ranks.size // ranks.pieces
        layers = rest = _mesh(kind, copies=copies, shares=inner)
    if ranks.tensor > 1:
        every = _mesh(kind, copies=copies, shares=ranks.shares, tensor=ranks.tensor)
        tensor = every.get_group("tensor")
        layers = every["copies", "shares"] if copies > 1 else every["shares"]
    return Meshes(layers, rest, tensor, context)


def _mesh(kind: str, **sizes: int) -> "DeviceMesh":
    """Lay all processes out, one after the other in the last dimension; nobody holds one copy."""
    from torch.distributed.device_mesh import init_device_mesh

    if sizes.get("copies") == 1:
        del sizes["copies"]
    return init_device_mesh(kind, tuple(sizes.values()), mesh_dim_names=tuple(sizes))


def begin_divided(shape: Shape, ranks: Ranks, meshes: Meshes) -> Transformer:
    """Return a network of which each process holds some rows, with nothing in them yet.

    Nobody ever holds all of it: the weights are to be given one by one.

    Args:
        shape: the network's sizes.
        ranks: the processes, which all call this.
        meshes: theirs.
    """
    from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

    device = ranks.device or torch.device("cpu")
    if device.type == "cpu":
        give_back_freed_memory()
    with torch.device("meta"):
        model = Transformer(shape)
    slabs = {}
    if meshes.tensor is not None:
        slabs = cut_layers(model, meshes.tensor, meshes.sharers)
    for layer in model.model.layers:
        fully_shard(layer, mesh=meshes.layers)
    fully_shard(model, mesh=meshes.rest)
    register_fsdp_forward_method(model, "hidden")
    model.to_empty(device=device)
    model.model.lay_angles(device)
    spread_rows(model, meshes.tensor, meshes.context)
    # Gathered once here: what is gathered for the first time where no gradient is wanted, as by
    # the first look at a sentence, could never be learned with.
    with torch.inference_mode(mode=False):
        for part in model.modules():
            if isinstance(part, FSDPModule):
                part.unshard()
                part.reshard()
                # Gradients are added up and not averaged: whoever shares them, by one rule.
                part.set_gradient_divide_factor(1.0)
                part.set_force_sum_reduction_for_comms(enable=True)
    for name, weight in model.named_parameters():
        if name in slabs:
            mark(weight, slabs[name])
    return model
