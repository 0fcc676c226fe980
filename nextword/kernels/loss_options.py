"""Options of the cross-entropy kernels: label smoothing, z-loss, softcap."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RowOptions:
    """What changes logits and loss of a row."""

    label_smoothing: float = 0.0
    z_loss: float = 0.0
    softcap: float = 0.0
    """0 for none."""

    @property
    def is_plain(self) -> bool:
        """Whether the loss is −log P(target) and nothing else."""
        return self.label_smoothing == 0 and self.z_loss == 0
