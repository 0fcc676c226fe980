"""Products of matrices with their own transpose, of which one half is computed.

x·xᵀ is symmetric: what stands below its diagonal stands above it too. Muon computes two such
products in each of its steps and one ordinary one, so a third of its work need not be done.
"""

from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor

Product = Callable[[Tensor, Tensor | None, float, float], Tensor]
"""(x (N, R, C), added (N, R, R) or None, beta, alpha) → beta·added + alpha·x·xᵀ, (N, R, R)."""
LEAST_ROWS = 256
"""Below which a matrix has too few blocks for a half of them to be worth leaving out."""


def kernel_for_products(x: Tensor) -> Product | None:
    """Return what computes half of such products where a matrix lies; None where nothing does.

    Args:
        x: matrices, (N, R, C).
    """
    fits = x.is_cuda and x.dtype == torch.bfloat16 and x.shape[1] >= LEAST_ROWS
    if not fits or find_spec("triton") is None:
        return None
    from nextword.kernels.symmetric_triton import product

    return product
