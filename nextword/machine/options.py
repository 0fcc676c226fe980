"""Settings of the machine."""

from dataclasses import dataclass

from nextword.base.options import option


@dataclass(frozen=True, kw_only=True)
class MachineSettings:
    """Where to compute and how exactly."""

    device: str = option(
        "auto",
        "where to compute: a GPU of NVIDIA's, or of AMD's by ROCm (cuda), Intel's (xpu), Apple's "
        "(mps)",
        choices=("auto", "cpu", "cuda", "xpu", "mps"),
    )
    precision: str = option(
        "auto",
        "of matrix products; auto takes bfloat16 where the hardware has it",
        choices=("auto", "float32", "bfloat16"),
    )
    compile: str = option(
        "auto",
        "compile a layer, once for all; auto does on a CUDA GPU, where a run is long enough",
        choices=("auto", "on", "off"),
    )
    recompute: str = option(
        "auto",
        "what is computed a second time for the gradient instead of being kept: nothing, all but "
        "the products and attention, or all of a layer; auto takes what fits into memory",
        choices=("auto", "none", "selective", "full"),
    )
    parallel: str = option(
        "auto",
        "what several processes hold: all the weights (ddp), a share of them (fsdp), or a share "
        "within each machine (hsdp); auto divides them where they do not fit",
        choices=("auto", "ddp", "fsdp", "hsdp"),
    )
    tensor: int = option(
        1,
        "processes that compute each layer together, each with some heads and some of the inner "
        "width (tensor parallelism)",
        minimum=1,
        maximum=64,
    )
    context: int = option(
        1,
        "processes that share the positions of each row, where a context is too long for one "
        "(context parallelism)",
        minimum=1,
        maximum=1024,
    )
    threads: int | None = option(
        None, "CPU threads", minimum=1, maximum=4096, rule="what torch chooses", of=("the machine",)
    )
