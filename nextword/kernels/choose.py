"""Choose a kernel: which hand-written implementation serves where a tensor lies, or none.

The network in model/ is plain PyTorch. Before it computes something, it asks here whether there is
something faster that does the same. This is the only place that knows which layer has a kernel.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from nextword.kernels import attention_cpu, layers_cpu

CPU: dict[str, Callable[..., Any]] = {
    "rms_norm": layers_cpu.rms_norm,
    "linear": layers_cpu.linear,
    "qkv_projection": layers_cpu.qkv_projection,
    "swiglu": layers_cpu.swiglu,
    "attention_of_pieces": attention_cpu.attention_of_pieces,
}
"""Worth it on a CPU, where the time of a network goes into passes over memory.

On a GPU compilers fuse such passes, and attention has kernels for bfloat16.
"""
_SERVED = (torch.bfloat16, torch.float32, torch.float64)
_plain = False


def kernel_for(operation: str, x: Tensor) -> Callable[..., Any] | None:
    """Return what computes an operation faster than plain PyTorch, or None.

    Args:
        operation: a key of `CPU`.
        x: what it will be applied to.

    Returns:
        a function that can be differentiated once; None on other devices, of types that no kernel
        has been tested with, and for those who are to see the network plainly: torch.compile and
        torch.export, transforms of torch.func, and autocast, which chooses types by itself.
    """
    if _plain or x.device.type != "cpu" or x.dtype not in _SERVED or is_looked_at(x):
        return None
    return CPU[operation]


def is_looked_at(x: Tensor) -> bool:
    """Whether somebody wants to see the network plainly: compilers, transforms, autocast."""
    return (
        torch.compiler.is_compiling()
        or torch.is_autocast_enabled("cpu")
        or torch._C._functorch.is_functorch_wrapped_tensor(x)
    )


@contextmanager
def plain_only() -> Iterator[None]:
    """Let the network compute plainly for a while: what the kernels are compared with."""
    global _plain
    before, _plain = _plain, True
    try:
        yield
    finally:
        _plain = before
