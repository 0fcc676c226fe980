"""Numbers that come from a device while it computes on.

`float(tensor)` makes this machine wait until a device has done everything that it was told before,
and the device then waits for the next order. What is to be known of a step is sent instead, and
read once the next step is under way.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


class Sent:
    """Numbers on their way."""

    def __init__(self, values: Sequence[Tensor]) -> None:
        """Send them; what is computed there later changes them no more.

        Args:
            values: () each, all on one device.
        """
        together = torch.stack([value.detach() for value in values])
        self.arrived: torch.cuda.Event | None = None
        if together.device.type == "cuda":
            # Only memory that the system cannot move is filled without this machine waiting.
            self.values = torch.empty(together.shape, dtype=together.dtype, pin_memory=True)
            self.values.copy_(together, non_blocking=True)
            self.arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self.arrived.record(torch.cuda.current_stream(together.device))
        else:
            self.values = together

    def read(self) -> list[float]:
        """Return them, once they are here."""
        if self.arrived is not None:
            self.arrived.synchronize()
        numbers: list[float] = self.values.tolist()
        return numbers


def computes_beside(device: torch.device) -> bool:
    """Whether a device computes on while this machine prepares what comes next."""
    return device.type == "cuda"
