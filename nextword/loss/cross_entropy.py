"""Cross-entropy from logits, plainly: the reference for every other implementation.

The model gives each of the V entries of its vocabulary a score, the logit. Softmax turns scores
into probabilities: raise e to each score, and divide by the sum, so that all are above 0 and
together they make 1. The loss of one prediction is −log of the probability it gave to the token
that really came: 0 when it was certain and right, 0.51 when it gave it 0.6, and ever larger as that
probability goes to 0. The loss of a text is the mean over its tokens.

This file is the idea in code and the reference for tests; `kernels/loss_chunks.py` computes the
same without holding all logits.
"""

import torch
from torch import Tensor


def log_softmax(logits: Tensor) -> Tensor:
    """Turn logits (…, V) into log-probabilities (…, V).

    Subtracting the greatest logit first changes no probability, and keeps e to the power of it from
    overflowing.
    """
    shifted = logits - logits.amax(dim=-1, keepdim=True)
    return shifted - shifted.exp().sum(dim=-1, keepdim=True).log()


def cross_entropy(logits: Tensor, targets: Tensor, ignore_index: int = -100) -> Tensor:
    """Average −log P(right token) over the tokens.

    Args:
        logits: (N, V), one row of scores a token.
        targets: (N,), the id that really came; `ignore_index` where nothing is asked.
        ignore_index: marks padding and whatever else has no right answer.

    Returns:
        the mean in nats; zero where no token is asked for.
    """
    asked = targets != ignore_index
    chosen = log_softmax(logits[asked]).gather(1, targets[asked].long()[:, None])
    return (
        -chosen.sum() / max(int(asked.sum()), 1)
        if len(chosen)
        else torch.zeros_like(logits.sum() * 0)
    )
