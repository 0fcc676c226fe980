"""Dropout: what a network has to do without for a few positions of a row.

What each half of a layer adds to the stream is multiplied by 0 in some channels, drawn anew for
each row, layer, half and span of positions, and by more in the others, so that the sum stays as
large. A network that is read a text several times then knows it less by heart. Source: Srivastava
et al. 2014; that some positions share what is drawn makes it cheap, and no worse (EXPERIMENTS.md).

The draws are a pure function of the seed, the step and the row: whoever goes on from a checkpoint
draws the same, and so do processes that share the rows, or a row's positions.

Legend of shapes: B rows, L layers, S spans of positions, D width.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nextword.model.layers import SPAN
from nextword.targets.batch import Batch

_PURPOSE = 0x64726F70
"""Keeps these draws apart from others of the same seed."""


class Dropout(NamedTuple):
    """What is left out."""

    share: float
    """Of the channels; 0 for none."""
    layers: int
    width: int
    seed: int

    def of(self, batch: Batch, step: int, rows: slice) -> Batch:
        """Say of a batch what the network is to do without.

        Args:
            batch: these rows of the step.
            step: from 0.
            rows: which they are of it.
        """
        if not self.share:
            return batch
        spans = -(-batch.inputs.shape[1] // SPAN)
        drawn = [self._row(step, row, spans) for row in range(rows.start, rows.stop)]
        return batch._replace(kept=np.stack(drawn))

    def _row(self, step: int, row: int, spans: int) -> NDArray[np.float32]:
        """Draw a row's, (L, 2, S, D)."""
        drawn = np.random.default_rng((_PURPOSE, self.seed, step, row)).random(
            (self.layers, 2, spans, self.width), dtype=np.float32
        )
        return (drawn >= self.share).astype(np.float32) / np.float32(1 - self.share)
