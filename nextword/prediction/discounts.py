"""Discounts of Kneser–Ney smoothing, told from how many n-grams were seen how often."""

import numpy as np
from numpy.typing import NDArray

FIXED_DISCOUNT = 0.75
"""Where so little was counted that no discount can be estimated."""


def estimate_discounts(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Tell from how many n-grams were seen once to four times what to take off a count.

    Counts of counts that are no text's can ask for a discount below 0, or for none, which would
    leave nothing to what was never seen. Then, or where one of the four is missing, one discount
    for all counts does, and where not even that can be told, 0.75.

    Args:
        counts: one for each different n-gram; zeros are passed over.

    Returns:
        (4,) the discounts of counts 0, 1, 2 and 3 or more; each above 0 and at most the count,
        except the first, which is 0.

    Source: Chen and Goodman 1998, section 3; one discount: Ney, Essen and Kneser, On Structuring
    Probabilistic Dependences in Stochastic Language Modelling, 1994.
    """
    once, twice, thrice, four = (
        int(n) for n in np.bincount(np.minimum(counts, 5), minlength=5)[1:5]
    )
    if not once or not twice:
        return np.array([0.0, *[FIXED_DISCOUNT] * 3])
    single = once / (once + 2 * twice)
    if thrice and four:
        second = 2 - 3 * single * thrice / twice
        third = 3 - 4 * single * four / thrice
        if second > 0 and third > 0:
            return np.array([0.0, single, second, third])
    return np.array([0.0, *[single] * 3])
