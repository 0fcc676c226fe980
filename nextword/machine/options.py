"""Settings of the machine."""

from dataclasses import dataclass

from nextword.base.options import option


@dataclass(frozen=True, kw_only=True)
class MachineSettings:
    """Where to compute and how exactly."""

    device: str = option("auto", "where to compute", choices=("auto", "cpu", "cuda", "mps"))
    precision: str = option(
        "auto",
        "of matrix products; auto takes bfloat16 where the hardware has it",
        choices=("auto", "float32", "bfloat16"),
    )
    threads: int | None = option(
        None, "CPU threads", minimum=1, maximum=4096, rule="what torch chooses", of=("the machine",)
    )
