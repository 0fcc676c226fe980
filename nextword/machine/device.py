"""Device and precision, chosen by looking at the machine.

On two Zen 4 cores with AVX512-BF16, matrix products in bfloat16 run about 2.5 times as fast as in
float32; on a CPU without it they run slower, so the precision is chosen by what the processor says
of itself. Loss, norms, master weights and optimizer state are float32 in either case.
"""

import contextlib
import ctypes
import os
import platform
from dataclasses import dataclass
from typing import Any

import torch

from nextword.base.errors import SettingsError
from nextword.machine.options import MachineSettings

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


@dataclass(frozen=True)
class Machine:
    """A device and the precision of matrix products on it."""

    device: torch.device
    precision: torch.dtype

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Compute matrix products in the chosen precision; everything else stays in float32."""
        if self.precision == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.precision)

    def in_float32(self) -> "Machine":
        """Return the same device at full precision, as evaluation and generation use it."""
        return Machine(self.device, torch.float32)

    def synchronize(self) -> None:
        """Wait until the device has finished, so that a clock read next is true."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "xpu":
            torch.xpu.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def describe(self) -> dict[str, Any]:
        """Return what a run writes down about its hardware."""
        names = {"cuda": torch.cuda.get_device_name, "xpu": torch.xpu.get_device_name}
        told = names.get(self.device.type)
        name = processor_name() if told is None else told(self.device)
        return {
            "device": str(self.device),
            "name": name,
            "precision": str(self.precision).removeprefix("torch."),
            "threads": torch.get_num_threads(),
            "cores": os.cpu_count(),
            "platform": platform.platform(),
        }

    def __str__(self) -> str:
        """Say device and precision in a few words."""
        words = {
            "cpu": f"CPU, {torch.get_num_threads()} threads",
            "cuda": "CUDA GPU" if torch.version.hip is None else "AMD GPU (ROCm)",
            "xpu": "Intel GPU",
            "mps": "Apple GPU",
        }
        precision = "bfloat16 matrix products" if self.precision == torch.bfloat16 else "float32"
        return f"{words.get(self.device.type, self.device.type)}, {precision}"


def choose_machine(settings: MachineSettings) -> Machine:
    """Look for CUDA (or ROCm, which PyTorch calls so), XPU and MPS, then take the CPU.

    Raises:
        SettingsError: the device asked for is not there.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    # Denormals appear in optimizer state and cost tens of times as much as ordinary numbers on a
    # CPU.
    torch.set_flush_denormal(True)
    _keep_freed_memory()
    settle_functions()
    available = {
        "cuda": torch.cuda.is_available(),
        "xpu": torch.xpu.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if settings.device == "auto":
        name = next(kind for kind, there in available.items() if there)
    elif available[settings.device]:
        name = settings.device
    else:
        raise SettingsError(
            f"machine.device = {settings.device!r}: this machine has no such device; try auto or "
            "cpu"
        )
    cards = {"cuda": torch.cuda.device_count, "xpu": torch.xpu.device_count}
    device = torch.device(f"{name}:{_own_card(cards[name]())}" if name in cards else name)
    if settings.precision == "auto":
        return Machine(device, torch.bfloat16 if has_bfloat16(device) else torch.float32)
    return Machine(device, getattr(torch, settings.precision))


def _own_card(cards: int) -> int:
    """Return this process's card among those it sees: a launcher may show it its own alone."""
    return 0 if cards == 1 else int(os.environ.get("LOCAL_RANK", "0"))


def _keep_freed_memory() -> None:
    """Let glibc keep large freed blocks, which every step needs again, instead of giving them back.

    Fresh pages must be cleared by the system: training at nanoGPT's CPU shape ran 15 % faster so.
    Elsewhere than on Linux with glibc nothing is done.
    """
    _keep_freed_from(1 << 30)


def give_back_freed_memory() -> None:
    """Let glibc give large blocks back to the system at once, until `choose_machine` is called.

    What is gathered and let go layer by layer stays otherwise: of its pieces none fits where the
    one before it stood. A process that held a quarter of 57 million weights, 57 MB, had 870 MB
    after gathering each layer a few times, and 435 so.
    """
    _keep_freed_from(1 << 20)


def _keep_freed_from(size: int) -> None:
    with contextlib.suppress(OSError, AttributeError, TypeError):
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, size)
        library.mallopt(_M_TRIM_THRESHOLD, size)


def settle_functions() -> None:
    """Call sin, cos and exp once from one thread, so that their results are the same every time.

    With oneMKL 2024 (torch 2.13 on x86) the first such call of a process, if two threads make it
    at once, may be off by 1e-9 in one thread's half (pytorch issue 188792), and then a resumed run
    or a compressed file is no longer the same bit for bit. To be removed with that torch.
    """
    one = torch.ones(1, dtype=torch.float64)
    one.sin(), one.cos(), one.exp()


def has_bfloat16(device: torch.device) -> bool:
    """Whether products in bfloat16 are fast on a device."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "xpu":
        return True
    if device.type == "cpu":
        capability = torch.backends.cpu.get_cpu_capability()
        probes = [
            getattr(torch.cpu, name, None)
            for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        ]
        return capability.startswith("AVX512") and any(
            probe is not None and probe() for probe in probes
        )
    return False


def processor_name() -> str:
    """Return what the processor calls itself."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
