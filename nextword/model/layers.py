"""Layers: RMSNorm, Linear, SwiGLU feed-forward, rotary position embeddings (RoPE).

Legend of shapes: B rows, T positions, D width, H heads, K head width, V vocabulary, N = B·T tokens.
"""

import torch
from torch import Tensor, nn

from nextword.kernels.layers_cpu import packed_linear, rms_norm, swiglu
from nextword.machine.device import settle_functions


class RMSNorm(nn.Module):
    """Scale each vector to length √D, then each coordinate by a learned weight. Source.

    Zhang & Sennrich 2019.
    """

    def __init__(self, width: int, eps: float) -> None:
        """Start with weights of one.

        Args:
            width: D, or K for the norm of queries and keys.
            eps: added under the root.
        """
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalize the last dimension, in float32 at least."""
        return rms_norm(x.float() if x.dtype == torch.bfloat16 else x, self.weight, self.eps)


class Linear(nn.Module):
    """A matrix product without bias, computed in `precision`.

    The weight itself stays in float32.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        """Leave the weights to `initialize`.

        Args:
            inputs: width of what comes in.
            outputs: width of what goes out.
        """
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.precision = torch.float32

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, inputs) to (…, outputs)."""
        return packed_linear(x, (self.weight,), self.precision)


class FeedForward(nn.Module):
    """SwiGLU: silu(x·gate) · (x·up), then down. Source: Shazeer 2020."""

    def __init__(self, width: int, inner: int) -> None:
        """Build the three matrices.

        Args:
            width: D.
            inner: width between them.
        """
        super().__init__()
        self.gate_proj = Linear(width, inner)
        self.up_proj = Linear(width, inner)
        self.down_proj = Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, D) to (B, T, D)."""
        return swiglu(
            x,
            self.gate_proj.weight,
            self.up_proj.weight,
            self.down_proj.weight,
            self.down_proj.precision,
        )


def rotary_tables(context: int, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of every position's angles, each (T, K), computed in float64.

    The angles stand in both halves, as pairs (i, i + K/2) turn together; the first half's sine is
    negative.
    """
    settle_functions()
    wavelengths = theta ** (torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angles = torch.arange(context, dtype=torch.float64)[:, None] / wavelengths
    sine = angles.sin().float()
    return angles.cos().float().repeat(1, 2), torch.cat((-sine, sine), dim=1)
