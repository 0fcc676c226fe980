"""How a layer is computed while it is trained, where that is not simply as it stands.

Compiled: all layers are one and the same code, so one of them is compiled and serves for all. And
keeping less: what the gradient needs is computed a second time instead of being kept.
"""

import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Step = Callable[[nn.Module, Tensor, Tensor, Tensor, Any, Tensor | None], Tensor]


def as_it_stands(
    layer: nn.Module, x: Tensor, cosine: Tensor, sine: Tensor, seen: Any, kept: Tensor | None
) -> Tensor:
    """Compute a layer: (B, T, D) to (B, T, D)."""
    computed: Tensor = layer(x, cosine, sine, None, seen, kept)
    return computed


@dataclass(frozen=True)
class LayerRunner:
    """What computes a layer for the gradient."""

    step: Step = as_it_stands
    blocks: bool = False
    """Whether it is told who looks at what by blocks."""
    is_compiled: bool = False
    """Whether a compiler looks at the layers, for whom rows must be alike."""

    def __call__(
        self,
        layer: nn.Module,
        x: Tensor,
        cosine: Tensor,
        sine: Tensor,
        seen: Any,
        kept: Tensor | None = None,
    ) -> Any:
        """Map (B, T, D) to (B, T, D)."""
        return self.step(layer, x, cosine, sine, seen, kept)


def compiled(step: Step, *, lengths_vary: bool) -> Step:
    """Compile what computes a layer: once for all layers, whatever their number.

    Args:
        step: plain.
        lengths_vary: whether rows and positions change from step to step; else the first ones are
            taken for good, which is faster.
    """
    # The compiler counts how often it has compiled a piece of code, and gives up at the eighth
    # time: each run has code of its own.
    assert isinstance(step, types.FunctionType)
    own = types.FunctionType(
        step.__code__.replace(),
        step.__globals__,
        step.__name__,
        step.__defaults__,
        step.__closure__,
    )
    dynamic = True if lengths_vary else None
    made: Step = torch.compile(own, fullgraph=True, dynamic=dynamic)
    return made


def within(
    layer: nn.Module, x: Tensor, cosine: Tensor, sine: Tensor, seen: Any, kept: Tensor | None
) -> Tensor:
    """Compute a layer without what others have hung on its call: (B, T, D) to (B, T, D)."""
    computed: Tensor = type(layer).forward(layer, x, cosine, sine, None, seen, kept)
    return computed


def compile_within(layers: Iterable[nn.Module], step: Step, *, lengths_vary: bool) -> None:
    """Compile what each layer's call does inside, once for all of them.

    Around it stays what is hung on the call: gathering its weights, and letting go of them.

    Args:
        layers: of a network.
        step: `within`, or that keeping less.
        lengths_vary: as of `compiled`.
    """
    made = compiled(step, lengths_vary=lengths_vary)

    def inside(layer: nn.Module) -> Callable[..., Any]:
        def forward(
            x: Tensor,
            cosine: Tensor,
            sine: Tensor,
            cache: Any = None,
            seen: Any = None,
            kept: Tensor | None = None,
        ) -> Any:
            if cache is None and torch.is_grad_enabled():
                return made(layer, x, cosine, sine, seen, kept)
            return type(layer).forward(layer, x, cosine, sine, cache, seen, kept)

        return forward

    for layer in layers:
        layer.forward = inside(layer)
        for part in layer.modules():
            if hasattr(part, "is_divided"):
                setattr(part, "is_divided", True)  # noqa: B010 - a plain value, no submodule


def as_written(layers: Iterable[nn.Module]) -> None:
    """Undo what `compile_within` did, if it did anything."""
    for layer in layers:
        vars(layer).pop("forward", None)


def keeping_less(step: Step, how: str) -> Step:
    """Let a layer keep less for its gradient, and compute the rest a second time.

    Args:
        step: computes a layer.
        how: "full": it keeps what it reads. "selective": also the results of its products and of
            attention, which are what takes long.
    """
    from torch.utils.checkpoint import checkpoint

    def sparing(
        layer: nn.Module, x: Tensor, cosine: Tensor, sine: Tensor, seen: Any, kept: Tensor | None
    ) -> Tensor:
        told: dict[str, Any] = {"use_reentrant": False}
        if how == "selective":
            told["context_fn"] = _selective
        # Nothing is drawn by chance within a layer, so no generator is kept.
        told["preserve_rng_state"] = False
        computed: Tensor = checkpoint(step, layer, x, cosine, sine, seen, kept, **told)
        return computed

    return sparing


DEAR = ("mm", "addmm", "bmm", "flex_attention", "narrow_product")
"""Operations whose results are kept."""
ATTENTION = "_scaled_dot_product_"
"""How the names of attention's kernels begin, of which a device has several."""


def _selective() -> Any:
    from torch.utils.checkpoint import create_selective_checkpoint_contexts

    return create_selective_checkpoint_contexts(_policy)  # type: ignore[no-untyped-call]


def _policy(context: Any, operation: Any, *arguments: Any, **options: Any) -> Any:
    from torch.utils.checkpoint import CheckpointPolicy

    name = getattr(operation, "__name__", str(operation)).split(".")[0]
    dear = name in DEAR or name.startswith(ATTENTION)
    return CheckpointPolicy.MUST_SAVE if dear else CheckpointPolicy.PREFER_RECOMPUTE
