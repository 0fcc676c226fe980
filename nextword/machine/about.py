"""Environment report: versions, devices, cores, memory.

`nextword --version --verbose` prints it, and a run writes the versions down. Whatever cannot be
found out is said to be unknown, for where something is broken is where this is asked for.
"""

import contextlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nextword import __version__

UNKNOWN, MISSING = "unknown", "not installed"
NEEDED = ("torch", "tokenizers", "numpy", "safetensors")
"""Packages on which the numbers of a run depend."""
OPTIONAL = ("transformers", "triton", "fastokens", "datasets")
_GIB = 1 << 30
_DRIVERS = ("/proc/driver/nvidia/version", "/sys/module/amdgpu/version")


def versions() -> dict[str, str]:
    """Return the versions that a run depends on.

    The program knows its own, also as a source tree that is not installed.
    """
    return {
        "nextword": __version__,
        "python": platform.python_version(),
        **{name: version_of(name) for name in NEEDED},
    }


def version_of(package: str) -> str:
    """Return a package's version, as its metadata has it."""
    try:
        return version(package) or UNKNOWN
    except PackageNotFoundError:
        return UNKNOWN if importlib.util.find_spec(package) else MISSING


def about() -> dict[str, Any]:
    """Return all that a report needs, in the order in which it is read."""
    return {
        **versions(),
        **{name: version_of(name) for name in OPTIONAL},
        "platform": platform.platform(),
        **_devices(),
        "driver": driver(),
        "cores": cores(),
        **memory(),
    }


def _devices() -> dict[str, Any]:
    """Say what torch finds here and what would be chosen, or why torch cannot say."""
    try:
        import torch

        from nextword.machine.device import choose_machine
        from nextword.machine.options import MachineSettings

        chosen = choose_machine(MachineSettings())
        built = torch.version.cuda and f"CUDA {torch.version.cuda}"
        built = built or (torch.version.hip and f"ROCm {torch.version.hip}") or "no GPU of its own"
        return {
            "torch built for": built,
            "devices": list_devices(),
            "chosen": f"{chosen.device}, {str(chosen.precision).removeprefix('torch.')}",
            "threads": torch.get_num_threads(),
        }
    except Exception as error:
        return {"devices": f"torch cannot say ({type(error).__name__}: {error})"}


def list_devices() -> list[str]:
    """Name the processor and every GPU, with what decides the precision there."""
    import torch

    from nextword.machine.device import processor_name

    found = [f"cpu: {processor_name()}, {torch.backends.cpu.get_cpu_capability()}"]
    for number in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(number)
        found.append(
            f"cuda:{number}: {card.name}, {card.total_memory / _GIB:.1f} GiB, compute capability "
            f"{card.major}.{card.minor}"
        )
    for number in range(torch.xpu.device_count()):
        intel = torch.xpu.get_device_properties(number)
        found.append(f"xpu:{number}: {intel.name}, {intel.total_memory / _GIB:.1f} GiB")
    if torch.backends.mps.is_available():
        found.append("mps: Apple GPU")
    return found


def driver() -> str:
    """Return the version of the GPU's driver, as the system or the driver's own program says."""
    for file in map(Path, _DRIVERS):
        with contextlib.suppress(OSError):
            if number := re.search(r"\d+\.\d+[.\d]*", file.read_text(encoding="utf-8")):
                return number[0]
    program = shutil.which("nvidia-smi")
    if program is None:
        return UNKNOWN
    asked = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True)
        return done.stdout.partition("\n")[0].strip() or UNKNOWN
    return UNKNOWN


def cores() -> str:
    """Count the cores there are, and those that this process may use if they are fewer."""
    there = os.cpu_count() or UNKNOWN
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else there
    return str(there) if usable == there else f"{usable} of {there}"


def memory() -> dict[str, str]:
    """Return how much memory there is, and how much of it is free."""
    found = {"memory": UNKNOWN}
    with contextlib.suppress(OSError, ValueError, AttributeError):
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        found["memory"] = f"{size / _GIB:.1f} GiB"
    with contextlib.suppress(OSError):
        told = Path("/proc/meminfo").read_text(encoding="utf-8")
        if free := re.search(r"^MemAvailable:\s+(\d+) kB", told, re.MULTILINE):
            found["memory"] += f", {int(free[1]) * 1024 / _GIB:.1f} GiB free"
    with contextlib.suppress(OSError, ValueError):
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8"))
        found["memory"] += f", {limit / _GIB:.1f} GiB allowed"
    return found


def describe_about(facts: dict[str, Any]) -> str:
    """Lay it out, a line each."""
    width = max(map(len, facts))
    lines = []
    for name, value in facts.items():
        first, *others = value if isinstance(value, list) else [value]
        lines.append(f"{name:<{width}}  {first}")
        lines += [f"{'':<{width}}  {other}" for other in others]
    return "\n".join(lines)
