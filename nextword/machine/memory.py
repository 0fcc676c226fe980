"""Memory that is free, by the tightest limit that is known: machine, container, accelerator."""

import gc
from collections.abc import Iterator
from pathlib import Path

import torch

GROUPS = (
    ("", "", "memory.max", "memory.current"),
    ("memory", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
)
"""Of Linux's control groups, version 2 and 1: how a process's line names them, where they lie, what
a group may hold, and what it holds."""


def free_memory(device: torch.device, root: Path = Path("/")) -> int | None:
    """Return the bytes that are free where a device computes; None where that is not known.

    Args:
        device: a GPU's own memory counts, else this machine's and its container's.
        root: of the file system that says so.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "xpu":
        return int(torch.xpu.mem_get_info(device)[0])
    found = []
    for line in _read(root / "proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable" and value.split()[:1]:
            found.append(1024 * int(value.split()[0]))
    for group, most, used in _groups(root):
        limit, held = (_read(group / name).strip() for name in (most, used))
        if limit.isdecimal() and held.isdecimal():
            # What files are cached there counts as held and is given back when it is needed.
            cached = _cached(group / "memory.stat")
            found.append(max(int(limit) - int(held) + cached, 0))
    return min(found, default=None)


def give_back_memory(device: torch.device) -> None:
    """Let go of what a device's allocator keeps for later: pieces of it are of the wrong size."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "xpu":
        torch.xpu.empty_cache()


def _groups(root: Path) -> Iterator[tuple[Path, str, str]]:
    """Yield the control groups that this process is in, with the names of their two figures.

    Its own and all above it, each of which may have the tightest limit (a job of Slurm's, a service
    of systemd's); in a container the root stands for its own.
    """
    own = {}
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, kinds, path = [*line.split(":", 2), "", ""][:3]
        own.update(dict.fromkeys(kinds.split(","), path))
    for kind, place, most, used in GROUPS:
        top = root / "sys/fs/cgroup" / place
        parts = [part for part in own.get(kind, "").split("/") if part not in ("", "..")]
        for depth in range(len(parts), -1, -1):
            yield top.joinpath(*parts[:depth]), most, used


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
