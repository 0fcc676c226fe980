"""Units of the loss: nats, bits, perplexity, bits per byte."""

import math

from nextword.base.errors import EvaluationError


def bits(nats: float) -> float:
    """Convert nats (natural log) to bits (log base 2): −ln 0.6 = 0.51 nats = 0.74 bits."""
    return nats / math.log(2)


def perplexity(nats_per_token: float) -> float:
    """Say between how many equally likely tokens the model was in doubt, on average.

    Args:
        nats_per_token: mean loss.

    Returns:
        e to the power of it; infinity where that is beyond a float.
    """
    return math.exp(nats_per_token) if nats_per_token < 709 else math.inf


def bits_per_byte(nats: float, num_bytes: int) -> float:
    """Compare models across vocabularies: surprise per byte of raw text.

    Args:
        nats: summed loss over the scored tokens, natural log.
        num_bytes: UTF-8 bytes those tokens spell.

    Returns:
        bits per byte; lower is better.

    Raises:
        EvaluationError: nothing was scored (never returns infinity).
    """
    if num_bytes <= 0:
        raise EvaluationError("bits per byte: no byte of text was scored; give a longer text")
    return bits(nats) / num_bytes
