"""What many processes cost before they learn, up to 1,024, and what the first of them writes.

    python -m tests.ranks_cost [--keep FILE]

The others only pretend to be there (torch's fake process group), so their messages take no time:
what is measured is what grows in each process with their number. What is written to the disk is
measured with processes that are there.
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from nextword.machine.about import versions
from nextword.machine.device import processor_name
from nextword.model.shape import ModelSettings, resolve_shape
from nextword.training.checkpoint import list_checkpoints
from nextword.training.dividing import begin_divided, mesh_of
from nextword.training.optimizers import build_optimizers, groups_of
from nextword.training.options import TrainingSettings
from nextword.training.rehearsal import pretended
from tests.place import Place
from tests.several import all_well, together

SIZES, REAL = (1, 8, 64, 256, 1024), (1, 2, 4)
OPTIONS = (
    "--training.steps=20", "--training.batch-tokens=1024", "--model.context=64",
    "--corpus.stories=120", "--machine.parallel=fsdp", "--training.evaluate-every=10",
)  # fmt: skip


def begin(size: int) -> dict[str, float]:
    """Return the seconds that beginning takes the first of so many processes, by part."""
    shape = resolve_shape(ModelSettings(depth=12), 50_304, 1024)
    times = [time.perf_counter()]
    with pretended(size, 8, "fsdp") as ranks:
        mesh = mesh_of(ranks)
        times.append(time.perf_counter())
        model = begin_divided(shape, ranks, mesh)
        times.append(time.perf_counter())
        build_optimizers(groups_of(model), TrainingSettings())
        times.append(time.perf_counter())
    meeting, dividing, optimizers = (b - a for a, b in itertools.pairwise(times))
    return {"meeting": meeting, "dividing": dividing, "optimizers": optimizers}


def written(place: Place, size: int) -> dict[str, int]:
    """Return the bytes that a run by so many processes writes beside weights and state."""
    all_well(together(place, size, ["train", "--name", f"by-{size}", *OPTIONS]))
    run = place.folder / "runs" / f"by-{size}"
    last = list_checkpoints(run)[-1].folder
    log = (run / "metrics.jsonl").read_text().splitlines()
    return {
        "log_lines": len(log),
        "manifest_bytes": (last / "training" / "manifest.json").stat().st_size,
        "files": sum(file.is_file() for file in run.rglob("*")),
    }


def main() -> None:
    """Measure, print, and keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, help="write the figures here")
    parser.add_argument("--begin", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.begin:
        begin(asked.begin)  # imports what is imported once
        print(json.dumps(begin(asked.begin)))
        return
    found = []
    for size in SIZES:
        command = [sys.executable, "-W", "ignore", "-m", "tests.ranks_cost", "--begin", str(size)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found.append({"processes": size, **json.loads(done.stdout)})
        print(found[-1], flush=True)
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder))
        real = [{"processes": size, **written(place, size)} for size in REAL]
    print(*real, sep="\n")
    if asked.keep:
        about = {
            "date": time.strftime("%Y-%m-%d"), "processor": processor_name(),
            "versions": versions(), "options": OPTIONS,
        }  # fmt: skip
        asked.keep.write_text(
            json.dumps({**about, "beginning": found, "written": real}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
