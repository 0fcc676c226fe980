"""How far this program and other tools are apart, found by the tests that compare them.

    python -m tests.compared

runs these tests and writes benchmarks/results/compatibility.json, from which the figures in
docs/compatibility.md are (`tests/test_docs.py` holds them to it).
"""

import importlib.metadata
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

HOME = Path(__file__).parents[1]
RESULTS = HOME / "benchmarks" / "results" / "compatibility.json"
PACKAGES = {
    "transformers": "transformers",
    "pipelines": "transformers",
    "onnxruntime": "onnxruntime",
    "MLX": "mlx-lm",
    "sentence-transformers": "sentence-transformers",
    "llama.cpp": "xllamacpp",
    "lm-evaluation-harness": "lm_eval",
    "peft": "peft",
    "trl": "trl",
    "tensorboard": "tensorboard",
    "wandb": "wandb",
    "mlflow": "mlflow-skinny",
    "trackio": "trackio",
}
"""Whose version is told of a row that begins so; Transformers.js is none of Python's."""
NOTES = "NEXTWORD_COMPARED"
"""A folder, into which each process writes what it found; nothing is noted where it is not set."""


def near(row: str, ours: Any, theirs: Any, *, most: float, relative: bool = False) -> None:
    """Hold two numbers, or arrays of them, to each other, and note how far they are apart.

    Args:
        row: of the table in docs/compatibility.md.
        ours: what this program says.
        theirs: what the tool says; of the same shape.
        most: that they may differ by.
        relative: as a share of theirs.
    """
    one, other = _numbers(ours), _numbers(theirs)
    assert one.shape == other.shape, row
    apart = np.abs(one - other)
    if relative:
        apart = apart / np.maximum(np.abs(other), np.finfo(float).tiny)
    largest = float(apart.max(initial=0.0))
    assert largest <= most, f"{row}: {largest:.3g} apart, and {most:.3g} is allowed"
    if folder := os.environ.get(NOTES):
        with open(Path(folder) / f"{os.getpid()}.jsonl", "a") as stream:
            stream.write(json.dumps({"row": row, "apart": largest, "allowed": most}) + "\n")


def _numbers(values: Any) -> Any:
    if hasattr(values, "detach"):
        values = values.detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64)


def power(value: float) -> str:
    """Write a difference with one digit, rounded up: 3·10⁻⁶."""
    if value == 0:
        return "none"
    exponent = math.floor(math.log10(value))
    digit = math.ceil(round(value / 10**exponent, 9))
    digit, exponent = (1, exponent + 1) if digit == 10 else (digit, exponent)
    raised = str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{digit}·10{raised}" if digit > 1 else f"10{raised}"


def main() -> None:
    """Run the tests that compare, and keep the largest difference of each row."""
    listed = ["git", "grep", "-l", "from tests.compared import", "--", "tests"]
    files = subprocess.run(listed, cwd=HOME, capture_output=True, text=True, check=True).stdout
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pytest", "-q", *files.split()]
        done = subprocess.run(command, cwd=HOME, env={**os.environ, NOTES: folder})
        notes = [
            json.loads(line)
            for file in Path(folder).glob("*.jsonl")
            for line in file.read_text().splitlines()
        ]
    if done.returncode:
        sys.exit(done.returncode)
    rows: dict[str, dict[str, float]] = {}
    for note in sorted(notes, key=lambda one: one["row"]):
        row = rows.setdefault(note["row"], {"apart": 0.0, "allowed": 0.0, "comparisons": 0})
        row["apart"] = max(row["apart"], note["apart"])
        row["allowed"] = max(row["allowed"], note["allowed"])
        row["comparisons"] += 1
    versions = {name: importlib.metadata.version(name) for name in set(PACKAGES.values())}
    if place := os.environ.get("NEXTWORD_NODE_MODULES"):
        told = json.loads(Path(place, "@huggingface/transformers/package.json").read_text())
        versions["Transformers.js"] = told["version"]
    result = {"date": time.strftime("%Y-%m-%d"), "rows": rows, "versions": versions}
    RESULTS.write_text(json.dumps(result, indent=2, ensure_ascii=False, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
