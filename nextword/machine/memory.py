"""Memory that is free, by the tightest limit that is known: machine, container, accelerator."""

from pathlib import Path

import torch

GROUPS = (
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)
"""Of Linux's control groups, version 2 and 1: what a container may hold, and what it holds."""


def free_memory(device: torch.device, root: Path = Path("/")) -> int | None:
    """Return the bytes that are free where a device computes; None where that is not known.

    Args:
        device: a GPU's own memory counts, else this machine's and its container's.
        root: of the file system that says so.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    found = []
    for line in _read(root / "proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable" and value.split()[:1]:
            found.append(1024 * int(value.split()[0]))
    for most, used in GROUPS:
        limit, held = (_read(root / "sys/fs/cgroup" / name).strip() for name in (most, used))
        if limit.isdecimal() and held.isdecimal():
            # What files are cached there counts as held and is given back when it is needed.
            cached = _cached(root / "sys/fs/cgroup" / Path(most).parent / "memory.stat")
            found.append(max(int(limit) - int(held) + cached, 0))
    return min(found, default=None)


def _cached(stat: Path) -> int:
    """Return the bytes of files that a control group keeps in memory and can let go of."""
    for line in _read(stat).splitlines():
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file") and value.isdecimal():
            return int(value)
    return 0


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""
