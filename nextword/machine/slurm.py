"""Processes that Slurm's srun has started: what it says of each, told as torchrun would.

Source: the output environment of srun(1). Only a step has these variables: a job's own script, in
which the program is one process, has none of them.
"""

import re
from collections.abc import Mapping

FIRST_PORT, PORTS = 20_000, 10_000
"""Where the processes of a step meet: one of these, by the job's number and the step's."""


def as_torchrun_would(environment: Mapping[str, str]) -> dict[str, str]:
    """Return WORLD_SIZE, RANK, … of one of several processes of a step; nothing for any other.

    Args:
        environment: of this process.
    """
    told = environment
    size = _number(told.get("SLURM_STEP_NUM_TASKS", ""))
    if size < 2 or "WORLD_SIZE" in told or not told.keys() >= NEEDED:
        return {}
    on_each = tasks_on_each(told["SLURM_STEP_TASKS_PER_NODE"])
    node, job = _number(told["SLURM_NODEID"]), _number(told.get("SLURM_JOB_ID", ""))
    step = _number(told.get("SLURM_STEP_ID", ""))
    return {
        "WORLD_SIZE": str(size),
        "RANK": told["SLURM_PROCID"],
        "LOCAL_RANK": told["SLURM_LOCALID"],
        "LOCAL_WORLD_SIZE": str(on_each[node] if node < len(on_each) else 1),
        "MASTER_ADDR": told.get("MASTER_ADDR", first_host(told["SLURM_STEP_NODELIST"])),
        "MASTER_PORT": told.get("MASTER_PORT", str(FIRST_PORT + (31 * job + step) % PORTS)),
    }


NEEDED = {
    "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_STEP_NODELIST",
    "SLURM_STEP_TASKS_PER_NODE",
}  # fmt: skip


def first_host(hosts: str) -> str:
    """Return the first of some hosts as Slurm lists them: gpu[03-07,12],cpu1 → gpu03."""
    inside, first = 0, ""
    for letter in hosts:
        inside += (letter == "[") - (letter == "]")
        if letter == "," and not inside:
            break
        first += letter
    return re.sub(r"\[([^\]\-,]*)[^\]]*\]", r"\1", first)


def tasks_on_each(tasks: str) -> list[int]:
    """Return how many processes each host has, as Slurm says it: 4(x2),3 → 4, 4, 3."""
    found = re.findall(r"(\d+)(?:\(x(\d+)\))?", tasks)
    return [int(count) for count, times in found for _ in range(int(times or 1))]


def _number(word: str) -> int:
    return int(word) if word.isdecimal() else 0
