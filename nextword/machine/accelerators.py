"""What accelerators can do: rates, memories and bandwidths, each with its source.

The makers' figures are peaks. `reached` and `attention` are the shares of the peak that training
was seen to reach (benchmarks/plans.py compares with runs that others have published); where nobody
could be compared with, `source` says so.
"""

from dataclasses import dataclass, fields, replace
from typing import Any

from nextword.base.errors import SettingsError
from nextword.base.options import nearest


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """One card."""

    name: str
    tflops: float
    """Of dense matrix products in bfloat16 at their peak, 10¹² operations a second."""
    reached: float
    """Share of that which the large products of training reach."""
    attention: float
    """Share of that which attention's kernels reach, forward and backward, at heads of 128."""
    memory: float
    """GB."""
    bandwidth: float
    """TB/s of its memory."""
    link: float
    """GB/s to the other cards of its machine, each way."""
    network: float
    """GB/s to other machines, for each card."""
    watts: float
    """At most."""
    source: str

    @property
    def products(self) -> float:
        """Operations a second of large products."""
        return self.tflops * 1e12 * self.reached


_AS_HOPPER = "reached and attention are taken to be as an H100's: nothing to compare with"
ACCELERATORS = {
    one.name: one
    for one in (
        Accelerator(
            name="a100",
            tflops=312,
            reached=0.81,
            attention=0.60,
            memory=80,
            bandwidth=2.039,
            link=300,
            network=25,
            watts=400,
            source="NVIDIA's data sheet of the A100 80GB SXM (2021), DGX A100 for the network; "
            "reached: runs of MPT (Databricks' llm-foundry); attention: Dao 2023 "
            "(FlashAttention-2)",
        ),
        Accelerator(
            name="h100",
            tflops=989.4,
            reached=0.67,
            attention=0.36,
            memory=80,
            bandwidth=3.35,
            link=450,
            network=50,
            watts=700,
            source="NVIDIA's data sheet of the H100 SXM (2023), DGX H100 for the network; reached: "
            "runs of MPT; attention: Shah et al. 2024 (FlashAttention-3) of FlashAttention-2",
        ),
        Accelerator(
            name="h200",
            tflops=989.4,
            reached=0.67,
            attention=0.36,
            memory=141,
            bandwidth=4.8,
            link=450,
            network=50,
            watts=700,
            source=f"NVIDIA's data sheet of the H200 SXM (2024); {_AS_HOPPER}",
        ),
        Accelerator(
            name="b200",
            tflops=2250,
            reached=0.67,
            attention=0.36,
            memory=180,
            bandwidth=8.0,
            link=900,
            network=50,
            watts=1000,
            source=f"NVIDIA's data sheet of the DGX B200 (2024), an eighth of it; {_AS_HOPPER}",
        ),
        Accelerator(
            name="mi300x",
            tflops=1307.4,
            reached=0.42,
            attention=0.20,
            memory=192,
            bandwidth=5.3,
            link=448,
            network=50,
            watts=750,
            source="AMD's data sheet of the MI300X (2023); reached: products at 620 TFLOP/s where "
            "an H100 has 720 (SemiAnalysis, December 2024); attention: half of that, a guess",
        ),
    )
}
GIVEN = tuple(
    one.name for one in fields(Accelerator) if one.name not in ("name", "reached", "source")
)
"""What may be told of a card that is not in the table, or not as it stands there."""


def find_accelerator(name: str, given: dict[str, float]) -> Accelerator:
    """Return a card by name, with what is known better.

    Args:
        name: as in the table.
        given: of `GIVEN`, what to put in its place; tflops are then those of large products.

    Raises:
        SettingsError: there is no such card, or what is given is not above 0.
    """
    known = ACCELERATORS.get(name.lower())
    if known is None:
        raise SettingsError(
            f"no accelerator {name!r} in the table: choose one of {', '.join(ACCELERATORS)}, and "
            f"say what is different by --{', --'.join(GIVEN)}.{nearest(name, ACCELERATORS)}"
        )
    for what, value in given.items():
        if not 0 < value < 1e9 or (what == "attention" and value > 1):
            raise SettingsError(f"--{what} {value:g}: must be above 0, and no more than can be")
    if not given:
        return known
    peak, reached = known.tflops, known.reached
    if "tflops" in given:  # of products as they are; the peak stays what MFU is a share of
        peak = max(peak, given["tflops"])
        reached = given["tflops"] / peak
    told = ", ".join(f"{what} {value:g}" for what, value in given.items())
    changed: dict[str, Any] = {**given, "tflops": peak, "reached": reached}
    return replace(known, **changed, source=f"{known.source}; given: {told}")
