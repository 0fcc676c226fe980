"""Rows spread among processes that compute each layer together, or share a long context.

Each holds some of a row's positions. Processes that compute a layer together (tensor parallelism)
have some heads of attention and some of the feed-forward's inner width each: positions are gathered
before either half of a layer, and what the halves of it add is added up and handed out by position
afterwards. Processes that share a context (context parallelism) swap, within attention, positions
for heads: each looks with some heads at all positions, and swaps back. Whoever has some heads only
never sees those of others, so it is exact for any mask, and no position waits longer than another.

All of it hangs on the network from outside, as hooks; the network knows nothing of it. Sources:
Shoeybi et al. 2019 and Korthikanti et al. 2022 (Megatron), Jacobs et al. 2023 (Ulysses).

Legend of shapes: B rows, T positions, D width, V vocabulary, H heads, K head width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from nextword.machine.parts import Slab, own_rows, slab_of
from nextword.model.layers import at_positions, precision_of
from nextword.model.transformer import Transformer
from nextword.targets.batch import IGNORED
from nextword.training.exchange import Group, added_up, gathered, handed_out, swapped

if TYPE_CHECKING:
    from nextword.model.attention import Seen

DIVIDED = {
    "q_proj": 0, "k_proj": 0, "v_proj": 0, "o_proj": 1, "gate_proj": 0, "up_proj": 0, "down_proj": 1
}  # fmt: skip
"""Along which dimension processes that compute a layer together divide its matrices."""
PADDED = -1
"""Document of positions that fill a row up, which nobody looks at."""


class Rows(NamedTuple):
    """What one process has of a batch."""

    inputs: Tensor
    """(B, T / context), which it embeds, and keeps its share of."""
    targets: Tensor
    """(B, T / (context · tensor))"""
    positions: Tensor
    """As of inputs."""
    soft: Tensor | None
    """As of targets, and V."""
    kept: Tensor | None
    """(B, L, 2, T / (context · tensor), D)."""


@dataclass
class Spread:
    """How rows are spread among processes, and whether those of the pass under way are."""

    tensor: Group
    """Who computes each layer together with this one."""
    context: Group
    """Who shares each row's positions with it."""
    announced: bool = False
    active: bool = False
    """Whether the pass under way, or the one whose gradient is, has a share of positions; else
    all of them, as one who is asked outside of training."""
    seen: "Seen | None" = None
    """Who may look where, of whole rows."""

    def fill_up(
        self, inputs: Tensor, targets: Tensor, documents: Tensor | None, *, causal: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Fill rows up so that all have as many positions, by some that ask and tell nothing.

        Args:
            inputs: (B, T) ids.
            targets: (B, T).
            documents: (B, T), or None.
            causal: whether nobody sees later positions anyhow.
        """
        lacks = -inputs.shape[1] % (self.tensor.size * self.context.size)
        if not lacks:
            return inputs, targets, documents
        if documents is None and not causal:
            documents = torch.zeros_like(inputs)
        if documents is not None:
            documents = F.pad(documents, (0, lacks), value=PADDED)
        return F.pad(inputs, (0, lacks)), F.pad(targets, (0, lacks), value=IGNORED), documents

    def own(
        self,
        inputs: Tensor,
        targets: Tensor,
        positions: Tensor | None,
        soft: Tensor | None,
        kept: Tensor | None,
    ) -> Rows:
        """Return this process's share of rows that are filled up.

        Args:
            inputs: (B, T).
            targets: (B, T).
            positions: (B, T), before they were filled up; None where each is its place in the row.
            soft: (B, T, V), before they were filled up; or None.
            kept: (B, L, 2, S, D), of the same; or None.
        """
        length = inputs.shape[1]
        mine = length // self.context.size
        first = self.context.rank * mine
        shared = slice(first, first + mine)
        mine //= self.tensor.size
        first += self.tensor.rank * mine
        asked = slice(first, first + mine)
        if positions is None:
            positions = torch.arange(length, device=inputs.device).expand(len(inputs), -1)
        positions = F.pad(positions, (0, length - positions.shape[1]))
        if soft is not None:
            soft = F.pad(soft, (0, 0, 0, length - soft.shape[1]))[:, asked]
        if kept is not None:
            kept = at_positions(kept, length)
            kept = F.pad(kept, (0, 0, 0, length - kept.shape[-2]))[..., asked, :]
        return Rows(inputs[:, shared], targets[:, asked], positions[:, shared], soft, kept)

    def begin(self, seen: "Seen | None") -> "Seen | None":
        """Announce a pass over shares of rows; return the mask that it is to be told of."""
        self.announced, self.seen = True, seen
        return seen if self.context.size == 1 else None  # it does not fit the share that is asked


def spread_of(model: nn.Module) -> Spread | None:
    """Return how a network's rows are spread; None where each process has whole ones."""
    found: Spread | None = vars(model).get("_spread")
    return found


def cut_layers(
    model: Transformer, tensor: "dist.ProcessGroup", sharers: "dist.ProcessGroup"
) -> dict[str, Slab]:
    """Cut the layers of a network with nothing in it down to what this process has of them.

    Args:
        model: on no device yet.
        tensor: who computes a layer together with this one.
        sharers: among whom weights are divided in all.

    Returns:
        what it has of each weight of a layer, by name.
    """
    (_, size, rank), found = Group.of(tensor), {}
    for number, layer in enumerate(model.model.layers):
        attention: Any = layer.self_attn
        queries, keys = attention.heads
        attention.heads = queries // size, keys // size
        for name, weight in list(layer.named_parameters()):
            owner, _, what = name.rpartition(".")
            dim = DIVIDED.get(owner.rpartition(".")[2])
            if dim is not None:
                cut = weight.detach().chunk(size, dim)[rank].clone()
                setattr(layer.get_submodule(owner), what, nn.Parameter(cut))
            found[f"model.layers.{number}.{name}"] = Slab(dim, rank, size, tensor, sharers)
    return found


def spread_rows(
    model: Transformer,
    tensor: "dist.ProcessGroup | None",
    context: "dist.ProcessGroup | None",
) -> None:
    """Hang on a network what lets several processes compute its rows together.

    Args:
        model: the network, whose layers have been cut where `tensor` is given.
        tensor: who computes each layer together with this one.
        context: who shares this one's rows, of those that do not.
    """
    if tensor is None and context is None:
        return
    spread = Spread(Group.of(tensor), Group.of(context))
    vars(model)["_spread"] = spread
    lacks = -model.shape.context % (spread.tensor.size * spread.context.size)
    if lacks:  # rows are filled up
        model.model.lay_angles(model.device, model.shape.context + lacks)

    def begin(backbone: nn.Module, given: Any) -> None:
        spread.active, spread.announced = spread.announced, False

    model.model.register_forward_pre_hook(begin)
    if tensor is not None:
        model.model.embed_tokens.register_forward_hook(_keep_share(spread))
    for layer in model.model.layers:
        if tensor is not None:
            for half, first in (("self_attn", "q_proj"), ("mlp", "gate_proj")):
                part = layer.get_submodule(half)
                part.register_forward_pre_hook(_gather(spread, part.get_submodule(first)))
                part.register_forward_hook(_hand_out(spread))
        if context is not None:
            mix = layer.get_submodule("self_attn.mix")
            mix.register_forward_pre_hook(_positions_to_heads(spread))
            mix.register_forward_hook(_heads_to_positions(spread))


def _keep_share(spread: Spread) -> Callable[..., Any]:
    def hook(module: nn.Module, given: Any, embedded: Tensor) -> Tensor:
        if not spread.active:
            return embedded
        mine = embedded.chunk(spread.tensor.size, dim=1)[spread.tensor.rank]
        return mine.contiguous()  # as all later layers read it: they are compiled as one

    return hook


def _gather(spread: Spread, first: Any) -> Callable[..., Any]:
    """Return what gathers all positions before half of a layer, in the type of its products."""

    def hook(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        if not spread.active:
            return given
        x = given[0].to(precision_of(first.weight, first.precision))
        return (gathered(x, spread.tensor), *given[1:])

    return hook


def _hand_out(spread: Spread) -> Callable[..., Any]:
    """Return what adds up half of a layer, and gives each its positions of that."""

    def hook(module: nn.Module, given: Any, added: Tensor) -> Tensor:
        if spread.active:
            return handed_out(added, spread.tensor)
        return added_up(added, spread.tensor)

    return hook


def _positions_to_heads(spread: Spread) -> Callable[..., Any]:
    """Return what lets attention have some heads at all positions, for all at some."""

    def hook(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        if not spread.active:
            return given
        queries, keys, values, _ = given
        size = spread.context.size
        if keys.shape[1] < size:  # one that serves several heads of queries is needed by each
            each = size // keys.shape[1]
            keys, values = (one.repeat_interleave(each, 1) for one in (keys, values))
        mine = (_some_heads(one, spread.context) for one in (queries, keys, values))
        return (*mine, spread.seen)

    return hook


def _some_heads(x: Tensor, group: Group) -> Tensor:
    """Map (B, H, T / size, K) to (B, H / size, T, K)."""
    # What goes to each: its heads, at these positions.
    sent = torch.unflatten(x, 1, (group.size, -1)).movedim(1, 0).flatten(0, 1)
    # What came from each: its positions, of these heads.
    came = torch.unflatten(swapped(sent, group), 0, (group.size, -1))
    return came.movedim(0, 2).flatten(2, 3)


def _heads_to_positions(spread: Spread) -> Callable[..., Any]:
    """Return what gives attention's results back: all heads, at some positions."""

    def hook(module: nn.Module, given: Any, mixed: Tensor) -> Tensor:
        if not spread.active:
            return mixed
        size = spread.context.size
        sent = torch.unflatten(mixed, 2, (size, -1)).movedim(2, 0).flatten(0, 1)
        came = torch.unflatten(swapped(sent, spread.context), 0, (size, -1))
        return came.movedim(0, 1).flatten(1, 2)

    return hook


@torch.no_grad()
def add_up_copies(model: nn.Module) -> None:
    """Add up gradients of weights that several have whole, each of its own positions or heads.

    Of all layers at once, when a step's gradients are there.
    """
    marked = [(slab_of(weight), weight.grad) for weight in model.parameters()]
    mine = [
        own_rows(grad)
        for slab, grad in marked
        if slab is not None and slab.dim is None and grad is not None
    ]
    if not mine:
        return
    group = next(slab.group for slab, _ in marked if slab is not None)
    together = torch.cat([one.flatten() for one in mine])
    dist.all_reduce(together, group=group)
    pieces = torch.split(together, [one.numel() for one in mine])
    for one, added in zip(mine, pieces, strict=True):
        one.copy_(added.view_as(one))
