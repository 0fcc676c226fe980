"""A step without numbers: what each process would hold, found by running the program itself.

Weights, activations, gradients and state are tensors that have sizes and nothing in them, and the
other processes are such as answer at once (torch's FakeTensorMode and its fake process group). The
code is the one that trains; each piece of memory is counted as it comes and goes.

What grows with depth and rows grows evenly, so a few small networks speak for a large one.
"""

import contextlib
import warnings
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nextword.base.errors import SettingsError
from nextword.kernels.choose import plain_only
from nextword.kernels.loss_chunks import MANY_ROWS, forget, gives_float32
from nextword.kernels.loss_rows import forget_buffers
from nextword.machine.parts import own_rows
from nextword.machine.ranks import Ranks
from nextword.model.runner import LayerRunner, as_it_stands, keeping_less
from nextword.model.shape import Shape
from nextword.model.transformer import Transformer
from nextword.training.dividing import begin_divided, meshes_of
from nextword.training.gradients import Gradient, forget_gradients, move
from nextword.training.optimizers import build_optimizers, groups_of
from nextword.training.options import TrainingSettings
from nextword.training.spreading import add_up_copies, spread_rows
from nextword.training.step import LanguageModelLoss, add_gradients

DEPTHS = (4, 6)
"""Of the networks that speak for deeper ones; with fewer layers no weights are gathered ahead."""
_READ, _DEVICE = torch.ops.aten._local_scalar_dense.default, torch.ops.prim.device.default


@dataclass(frozen=True)
class Held:
    """Bytes that one process holds."""

    weights: int
    gradients: int
    state: int
    """The optimizer's."""
    in_forward: int
    """At most, all together, until the loss is there."""
    in_early: int
    """The same in the first half of the backward pass, where what was kept is still there."""
    in_late: int
    """The same in its second half, where gradients are."""
    in_update: int
    """The same while weights are moved."""

    @property
    def peaks(self) -> tuple[int, ...]:
        """By phase; of each what grows with depth and rows grows evenly, not of the greatest."""
        return self.in_forward, self.in_early, self.in_late, self.in_update

    @property
    def peak(self) -> int:
        """At most."""
        return max(self.peaks)

    @property
    def beside(self) -> int:
        """What a step needs beside weights, gradients and state: gathered weights, what is kept."""
        return self.peak - self.weights - self.gradients - self.state

    def towards(self, other: "Held", share: float) -> "Held":
        """Return what lies on the line from this one to another, at a share of the way."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Held(*(round(one + share * (two - one)) for one, two in pairs))


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the memory of all tensors that are made while it is entered."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self._peak = 0
        self.peaks: list[int] = []
        """Of the phases of a step that are over."""
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        from torch._subclasses.fake_tensor import FakeTensor
        from torch.distributed.tensor import DTensor

        if func is _DEVICE and isinstance(args[0], FakeTensor):
            return args[0].fake_device  # half of all that is asked; nothing is made of it
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # what it does to this process's rows comes here by itself
        if func is _READ:  # no number is there: any will do, and what is asked for holds
            kind = args[0].dtype
            return True if kind is torch.bool else 1.0 if kind.is_floating_point else 1
        made = func(*args, **(kwargs or {}))
        for one in tree_leaves(made):
            if isinstance(one, torch.Tensor) and one.device.type != "meta":
                self._note(one.untyped_storage())
        return made

    def begin_phases(self) -> None:
        """Begin a step."""
        self.peaks.clear()
        self._peak = self.now

    def next_phase(self, gradient: Any = None) -> None:
        """End a phase, and begin the next."""
        self.peaks.append(self._peak)
        self._peak = self.now

    def _note(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._sizes:
            weakref.finalize(storage, self._gone, key)
        self.resized(storage)

    def resized(self, storage: torch.UntypedStorage, *, known: bool = False) -> None:
        """Note a storage's size as it is now; of those that are known, if only they matter."""
        key = storage._cdata
        if known and key not in self._sizes:
            return
        size = storage.nbytes()
        self.now += size - self._sizes.get(key, 0)
        self._sizes[key] = size
        self._peak = max(self._peak, self.now)

    def _gone(self, key: int) -> None:
        self.now -= self._sizes.pop(key)

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """Count what is made meanwhile, and what grows or is let go of."""
        resize = torch.UntypedStorage.resize_

        def noted(storage: torch.UntypedStorage, size: int) -> Any:
            done = resize(storage, size)
            self.resized(storage, known=True)
            return done

        torch.UntypedStorage.resize_ = noted  # type: ignore[method-assign,assignment]
        try:
            with self:
                yield
        finally:
            torch.UntypedStorage.resize_ = resize  # type: ignore[method-assign]


@contextlib.contextmanager
def pretended(
    size: int,
    on_machine: int,
    parallel: str,
    device: str = "cpu",
    *,
    tensor: int = 1,
    context: int = 1,
) -> Iterator[Ranks]:
    """Be the first of so many processes, the others of which are not there.

    Args:
        size: how many.
        on_machine: how many are on one machine.
        parallel: how they divide weights.
        device: where they lie; without a GPU, "cpu".
        tensor: how many compute each layer together.
        context: how many of those groups share each row.

    Raises:
        SettingsError: this process is one of several already.
    """
    if dist.is_initialized():
        raise SettingsError("this is one of several processes already: plan in one of its own")
    import torch.testing._internal.distributed.fake_pg  # "fake" is known by it

    store = dist.HashStore()  # type: ignore[attr-defined]
    dist.init_process_group("fake", store=store, rank=0, world_size=size)
    try:
        ranks = Ranks(0, size, torch.device(device), on_machine, is_even=True, parallel=parallel)
        yield replace(ranks, tensor=tensor, context=context)
    finally:
        dist.destroy_process_group()


class Case(NamedTuple):
    """What may differ from one step of a network to the next."""

    rows: int
    """Read at once."""
    recompute: str = "none"
    """What is computed a second time: none, selective or full."""


def rehearse(
    shape: Shape,
    training: TrainingSettings,
    ranks: Ranks,
    cases: Sequence[Case],
    *,
    precision: torch.dtype = torch.bfloat16,
    plain: bool = True,
) -> list[Held]:
    """Count what the first of several processes holds.

    Args:
        shape: of the network; its depth does not matter much for the time that this takes.
        training: says the optimizer.
        ranks: from `pretended`.
        cases: of steps that the same network does one after the other.
        precision: of products.
        plain: whether layers are computed as on a GPU, without the kernels of CPUs.

    Returns:
        what is held in each case.
    """
    first, second = DEPTHS
    if shape.num_hidden_layers > second:
        least, most = (
            rehearse(
                replace(shape, num_hidden_layers=depth), training, ranks, cases,
                precision=precision, plain=plain,
            )
            for depth in DEPTHS
        )  # fmt: skip
        share = (shape.num_hidden_layers - first) / (second - first)
        return [one.towards(two, share) for one, two in zip(least, most, strict=True)]
    return _count(shape, training, ranks, cases, precision, plain=plain)


def _count(
    shape: Shape,
    training: TrainingSettings,
    ranks: Ranks,
    cases: Sequence[Case],
    precision: torch.dtype,
    *,
    plain: bool,
) -> list[Held]:
    from torch._subclasses.fake_tensor import FakeTensorMode

    meshes = meshes_of(ranks)
    counter, device = _Counter(), torch.device("cpu")
    forget()
    if not plain:
        gives_float32(precision, device)  # as this machine's processor does; a card always does
    with contextlib.ExitStack() as within:
        within.callback(forget)
        within.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", message="Accessing the data pointer of FakeTensor")
        within.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        if plain:
            within.enter_context(plain_only())
        within.enter_context(counter.counting())
        if ranks.divides_weights:
            model = begin_divided(shape, ranks, meshes)
        else:
            model = Transformer(shape)
            spread_rows(model, None, meshes.context)
        weights = counter.now
        model.set_precision(precision)
        optimizers = build_optimizers(groups_of(model), training)
        chunk = MANY_ROWS if plain else None
        loss = LanguageModelLoss(model, precision=precision, chunk_rows=chunk)
        _note_phases(loss, model, counter)

        ids: torch.Tensor | None = None

        def add_up(case: Case) -> tuple[list[int], int]:
            """Do a step up to its gradients; return the most held in each phase, and what stays."""
            nonlocal ids
            ids = None
            forget_gradients(model, optimizers)
            forget_buffers()
            runs = LayerRunner(keeping_less(as_it_stands, case.recompute))
            model.model.runner = None if case.recompute == "none" else runs
            ids = torch.zeros(case.rows, shape.context, dtype=torch.long)
            counter.begin_phases()
            add_gradients(loss, [(ids, ids)], float(ids.numel()), device, ranks.averages)
            add_up_copies(model)
            counter.next_phase()
            return [*counter.peaks], counter.now

        def update() -> int:
            """Move the weights; return the most that was held."""
            counter.begin_phases()
            move(optimizers, Gradient.of(model, optimizers), 1e-3, training.clip_norm, None)
            counter.next_phase()
            return counter.peaks[0]

        add_up(cases[0])
        update()  # the optimizer's state is there from now on
        phases, stays = zip(*map(add_up, cases), strict=True)
        gradients = _bytes(weight.grad for weight in model.parameters())
        updating = update() - stays[-1]  # more than stays of a step, whatever that has read
        state = _bytes(
            value
            for optimizer in optimizers
            for values in optimizer.state.values()
            for value in values.values()
        )
    # DDP, which is not put around it here, holds the gradients a second time, in its buckets.
    again = 0 if ranks.divides_weights or ranks.size == 1 else gradients
    return [
        Held(weights, gradients + again, state, *(one + again for one in (*peaks, stay + updating)))
        for peaks, stay in zip(phases, stays, strict=True)
    ]


def _note_phases(loss: LanguageModelLoss, model: Transformer, counter: _Counter) -> None:
    """Let a phase end where the loss is there, and where half of the layers have gradients."""
    layers = model.model.layers
    half = layers[max(len(layers) // 2 - 1, 0)]

    def end_forward(module: Any, given: Any, total: torch.Tensor) -> None:
        counter.next_phase()

    def end_half(module: Any, given: Any, after: torch.Tensor) -> None:
        if after.requires_grad and not counter.peaks:  # not as it is computed a second time
            after.register_hook(counter.next_phase)  # type: ignore[no-untyped-call]

    loss.register_forward_hook(end_forward)
    half.register_forward_hook(end_half)


def _bytes(tensors: Iterable[Any]) -> int:
    """Add up what this process holds of tensors, None among them."""
    return sum(own_rows(one).nbytes for one in tensors if isinstance(one, torch.Tensor))
