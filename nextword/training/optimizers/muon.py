"""Muon for hidden matrices, AdamW for embeddings and vectors. Source: Jordan et al. 2024."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nextword.kernels.symmetric import kernel_for_products
from nextword.machine.device import has_bfloat16
from nextword.machine.parts import block_of, own_rows, shared_by, whole_shape
from nextword.training.eager_optimizer import EagerOptimizer
from nextword.training.optimizers import adamw
from nextword.training.options import TrainingSettings

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the fifth-degree polynomial that brings singular values near 1. Source: Jordan et al. 2024."""


def build(
    groups: dict[str, dict[str, nn.Parameter]], settings: TrainingSettings
) -> list[torch.optim.Optimizer]:
    """Give matrices to Muon, in the precision that is fast where they lie, the rest to AdamW."""
    rest = {kind: weights for kind, weights in groups.items() if kind != "matrices"}
    matrices = list(groups["matrices"].values())
    rate, decay = settings.matrix_rate, settings.weight_decay
    kind: type[Muon] = DistributedMuon if ranks_in_all() > 1 else BatchedMuon
    if matrices and shared_by(matrices[0]) is not None:
        kind = DividedMuon
    muon = [kind(matrices, rate, weight_decay=decay)] if matrices else []
    return [*muon, *adamw.build(rest, settings)]


TOGETHER_UPTO, TOGETHER_IN_BFLOAT16_UPTO = 128, 192
"""Rows of a matrix up to which several of one shape are treated together on a CPU."""
MOST_TOGETHER = 1 << 27
"""Numbers of all matrices that are treated together, elsewhere: half a gigabyte in four copies."""


class Muon(EagerOptimizer):
    """Move each matrix by its momentum, made orthogonal: all its singular values near 1.

    In bfloat16 it does what `torch.optim.Muon` does, to the last bit; in float32 it is for
    processors without bfloat16 products. (On Zen 3 cores a product of 384 × 128 matrices takes 16
    times as long in bfloat16, and 0.5 of a step's 0.75 seconds of the default run went into that.)
    """

    LIKE_WEIGHT = ("momentum_buffer",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.03,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        *,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = COEFFICIENTS,
        ns_steps: int = 5,
        eps: float = 1e-7,
        precision: torch.dtype | None = None,
    ) -> None:
        """Take the matrices.

        Args:
            params: matrices (R, C), or groups of them; other shapes belong to another optimizer.
            lr: of each singular value, where a matrix is wide; times √(R/C) where it is tall.
            momentum: of the gradient, as a running mean.
            weight_decay: decoupled: each step takes `lr · weight_decay` of the weights off.
            nesterov: look one step ahead.
            ns_coefficients: of the Newton–Schulz polynomial a·x + b·x³ + c·x⁵.
            ns_steps: how often it is applied.
            eps: least length that is divided by.
            precision: of the products; default: bfloat16 where that is fast, else float32.

        Raises:
            ValueError: a parameter is no matrix.
        """
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "ns_coefficients": ns_coefficients,
            "ns_steps": ns_steps,
            "eps": eps,
            "precision": precision,
        }
        super().__init__(params, defaults)
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.ndim != 2:
                    raise ValueError(
                        f"Muon moves matrices; a parameter has shape {tuple(weight.shape)}: give "
                        "it to AdamW"
                    )

    def move(self, group: dict[str, Any]) -> None:
        """Move a group's matrices by their orthogonalized momentum."""
        moving = [weight for weight in group["params"] if weight.grad is not None]
        if not moving:
            return
        directions = self._directions(moving, group)
        here = [own_rows(weight) for weight in moving]
        torch._foreach_mul_(here, 1 - group["lr"] * group["weight_decay"])
        orthogonal = self._orthogonal(directions, group)
        for weight, own, direction in zip(moving, here, orthogonal, strict=True):
            rows, columns = whole_shape(weight)
            own.add_(direction, alpha=-group["lr"] * math.sqrt(max(1.0, rows / columns)))

    def _directions(self, moving: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """Return each momentum, or where it will be after one more such gradient."""
        gradients = [own_rows(weight.grad) for weight in moving if weight.grad is not None]
        for weight, gradient in zip(moving, gradients, strict=True):
            if "momentum_buffer" not in self.state[weight]:
                self.state[weight]["momentum_buffer"] = torch.zeros_like(gradient)
        momenta: list[Tensor] = [self.state[weight]["momentum_buffer"] for weight in moving]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        if not group["nesterov"]:
            return momenta
        return list(torch._foreach_lerp(gradients, momenta, group["momentum"]))

    def _orthogonal(self, directions: list[Tensor], group: dict[str, Any]) -> Iterable[Tensor]:
        how = group["ns_coefficients"], group["ns_steps"], group["eps"]
        for direction in directions:
            narrow = precision_for(direction, group["precision"])
            yield orthogonal(direction.to(narrow), *how)


class BatchedMuon(Muon):
    """Muon that treats matrices of one shape together: fewer and larger products.

    Of four layers, 128 wide, on two cores, 28 matrices took 37 ms one by one and 10
    together in bfloat16 (Zen 4), 37 and 30 in float32 (Zen 3); of three, 192 wide, 21 took 33 and
    13 ms in bfloat16 (Sapphire Rapids), and in float32 as long together. From 256 rows on a matrix
    fills the cores by itself, and together took 10 to 20 % longer on Zen 4. A GPU is filled by many
    of them only.
    """

    def _orthogonal(self, directions: list[Tensor], group: dict[str, Any]) -> Iterable[Tensor]:
        how = group["ns_coefficients"], group["ns_steps"], group["eps"]
        found: dict[int, Tensor] = {}
        alike: dict[tuple[Any, ...], list[int]] = {}
        for number, direction in enumerate(directions):
            narrow = precision_for(direction, group["precision"])
            upto = TOGETHER_IN_BFLOAT16_UPTO if narrow == torch.bfloat16 else TOGETHER_UPTO
            if direction.device.type == "cpu" and min(direction.shape) > upto:
                found[number] = orthogonal(direction.to(narrow), *how)
            else:
                size = (min(direction.shape), max(direction.shape))
                alike.setdefault((*size, direction.device, direction.dtype), []).append(number)
        for numbers in _in_parts(alike.values(), directions):
            chosen = [directions[number] for number in numbers]
            wide = [one.T if one.shape[0] > one.shape[1] else one for one in chosen]
            narrow = precision_for(wide[0], group["precision"])
            together = orthogonal_stack(torch.stack(wide).to(narrow), *how)
            for number, one, result in zip(numbers, chosen, together, strict=True):
                found[number] = result.T if one.shape[0] > one.shape[1] else result
        return (found[number] for number in range(len(directions)))


class DistributedMuon(BatchedMuon):
    """Muon whose matrices are shared out: each process makes its part orthogonal, for all.

    Every process has the same gradients, as DDP leaves them, and takes the same result, bit for
    bit, from the one that computed it.
    """

    def _orthogonal(self, directions: list[Tensor], group: dict[str, Any]) -> Iterable[Tensor]:
        owners = share_out([_work_of(one.shape) for one in directions], ranks_in_all())
        mine = [number for number, owner in enumerate(owners) if owner == dist.get_rank()]
        made = super()._orthogonal([directions[number] for number in mine], group)
        found = dict(zip(mine, made, strict=True))
        for number, (direction, owner) in enumerate(zip(directions, owners, strict=True)):
            if number in found:
                result = found[number].contiguous()
            else:
                narrow = precision_for(direction, group["precision"])
                result = torch.empty(direction.shape, dtype=narrow, device=direction.device)
            dist.broadcast(result, src=owner)
            yield result


class DividedMuon(BatchedMuon):
    """Muon for matrices that are divided among processes, and their momenta with them.

    Each process sends what it holds of a direction to the one that makes that matrix orthogonal,
    and gets the same part of the result back: of all numbers a process sends its own share
    twice, where a step of `fully_shard` sends three times that of every process.
    """

    def _orthogonal(self, directions: list[Tensor], group: dict[str, Any]) -> Iterable[Tensor]:
        moving = [weight for weight in group["params"] if weight.grad is not None]
        sharers = shared_by(moving[0])
        assert sharers is not None
        # Not all at once: what an owner holds of its matrices, whole and in copies, is bounded.
        most = MOST_TOGETHER * dist.get_world_size(sharers)
        for some in _rounds([math.prod(whole_shape(weight)) for weight in moving], most):
            yield from self._round(directions[some], moving[some], sharers, group)

    def _round(
        self,
        directions: list[Tensor],
        weights: list[Tensor],
        sharers: "dist.ProcessGroup",
        group: dict[str, Any],
    ) -> Iterable[Tensor]:
        """Make some matrices orthogonal: of each, this process has a block and gets it back."""
        size, rank = dist.get_world_size(sharers), dist.get_rank(sharers)
        shapes = [whole_shape(weight) for weight in weights]
        owners = share_out([_work_of(shape) for shape in shapes], size)
        owned = [[n for n, owner in enumerate(owners) if owner == one] for one in range(size)]
        narrow = precision_for(directions[0], group["precision"])
        empty = directions[0].new_empty(0, dtype=narrow)
        # Whose block of which matrix: (from whom to whom, the matrices that the receiver owns).
        blocks = [[block_of(weights[n], one, size) for n in owned[rank]] for one in range(size)]
        parts = [[directions[n].to(narrow) for n in owned[one]] for one in range(size)]
        theirs = [[block.shape for block in each] for each in blocks]
        pieces = _exchange(parts, theirs, sharers, empty)
        wholes = [empty.new_empty(shapes[n]) for n in owned[rank]]
        for each, sent in zip(blocks, pieces, strict=True):
            for whole, block, piece in zip(wholes, each, sent, strict=True):
                whole[block.rows, block.columns] = piece
        made = list(super()._orthogonal(wholes, group))
        back = [
            [one[block.rows, block.columns] for one, block in zip(made, each, strict=True)]
            for each in blocks
        ]
        mine = [[_shape_of(directions[n]) for n in owned[one]] for one in range(size)]
        results = _exchange(back, mine, sharers, empty)
        found = {n: rows for ns, each in zip(owned, results, strict=True)
                 for n, rows in zip(ns, each, strict=True)}  # fmt: skip
        return (found[number] for number in range(len(shapes)))


def _rounds(sizes: Sequence[int], most: int) -> Iterable[slice]:
    """Divide what follows one another into pieces of at most so much, or of one."""
    begin = held = 0
    for number, size in enumerate(sizes):
        if number > begin and held + size > most:
            yield slice(begin, number)
            begin, held = number, 0
        held += size
    yield slice(begin, len(sizes))


def _shape_of(matrix: Tensor) -> tuple[int, int]:
    rows, columns = matrix.shape
    return rows, columns


def _exchange(
    parts: Sequence[Sequence[Tensor]],
    shapes: Sequence[Sequence[tuple[int, int]]],
    group: "dist.ProcessGroup",
    empty: Tensor,
) -> list[list[Tensor]]:
    """Send each process some matrices, and return those that each has sent.

    Args:
        parts: for each process.
        shapes: of what comes from each.
        group: the processes.
        empty: (0,), of the type that is sent and where it lies.
    """
    sent = torch.cat([empty, *(part.reshape(-1) for each in parts for part in each)])
    lengths = [[rows * columns for rows, columns in each] for each in shapes]
    received = empty.new_empty(sum(map(sum, lengths)))
    dist.all_to_all_single(
        received,
        sent,
        [sum(each) for each in lengths],
        [sum(part.numel() for part in each) for each in parts],
        group=group,
    )
    pieces = iter(torch.split(received, [length for each in lengths for length in each]))
    return [[next(pieces).view(shape) for shape in each] for each in shapes]


def _in_parts(alike: Iterable[list[int]], matrices: Sequence[Tensor]) -> Iterable[list[int]]:
    """Divide what is alike so that no part is too large to be copied."""
    for numbers in alike:
        most = max(MOST_TOGETHER // matrices[numbers[0]].numel(), 1)
        for start in range(0, len(numbers), most):
            yield numbers[start : start + most]


def ranks_in_all() -> int:
    """Count the processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _work_of(shape: torch.Size) -> int:
    """Count the products of a matrix's Newton–Schulz step, but for a factor."""
    least, most = sorted(shape)
    return least * least * (2 * most + least)


def share_out(work: Sequence[int], parts: int) -> list[int]:
    """Give each piece of work to one of some parts: the largest first, to who has least."""
    owners, loads = [0] * len(work), [0] * parts
    for number in sorted(range(len(work)), key=lambda one: (-work[one], one)):
        owners[number] = loads.index(min(loads))
        loads[owners[number]] += work[number]
    return owners


def precision_for(matrix: Tensor, asked: torch.dtype | None) -> torch.dtype:
    """Return the type in which products are fast where a matrix lies; float64 stays as it is."""
    if asked is not None or matrix.dtype == torch.float64:
        return asked or matrix.dtype
    return torch.bfloat16 if has_bfloat16(matrix.device) else torch.float32


def orthogonal(
    matrix: Tensor,
    coefficients: tuple[float, float, float] = COEFFICIENTS,
    steps: int = 5,
    epsilon: float = 1e-7,
) -> Tensor:
    """Bring all singular values near 1 and leave their vectors, by Newton–Schulz steps.

    Args:
        matrix: (R, C), in the precision to compute in.
        coefficients: of a·x + b·x³ + c·x⁵.
        steps: how often.
        epsilon: least length that is divided by.

    Returns:
        (R, C), in the same precision; singular values about 0.7 to 1.2 after five steps.
    """
    a, b, c = coefficients
    tall = matrix.shape[0] > matrix.shape[1]
    wide = matrix.T if tall else matrix
    wide = wide / wide.norm().clamp(min=epsilon)
    for _ in range(steps):
        square = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(square, square, square, beta=b, alpha=c), wide, beta=a)
    return wide.T if tall else wide


def orthogonal_stack(
    matrices: Tensor,
    coefficients: tuple[float, float, float] = COEFFICIENTS,
    steps: int = 5,
    epsilon: float = 1e-7,
) -> Tensor:
    """Do the same for several wide matrices (N, R, C), R ≤ C, at once."""
    a, b, c = coefficients
    lengths: Tensor = torch.linalg.vector_norm(matrices, dim=(1, 2), keepdim=True)
    wide = matrices / lengths.clamp(min=epsilon)
    by_half = kernel_for_products(wide)
    for _ in range(steps):
        if by_half is None:
            square = wide @ wide.mT
            inner = torch.baddbmm(square, square, square, beta=b, alpha=c)
        else:
            square = by_half(wide, None, 0.0, 1.0)
            inner = by_half(square, square, b, c)
        wide = torch.baddbmm(wide, inner, wide, beta=a)
    return wide
