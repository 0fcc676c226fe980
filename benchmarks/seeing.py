"""What looking costs: replay's share of training, the speed and size of compressing, the ruler.

    python benchmarks/seeing.py            (about five minutes on two quiet cores)

Trains the default run in a folder of its own, then compresses its hold-out text and decompresses
it, three times each, with PPMd and xz on the same bytes in between. Writes results/seeing.json.
"""

import json
import lzma
import os
import platform
import shutil
import statistics
import tempfile
import time
from pathlib import Path

REPETITIONS = 3
RESULTS = Path(__file__).parent / "results" / "seeing.json"


def timed(work):
    """Return seconds and result."""
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def replay_share(run: Path) -> dict:
    """Say what part of the training went into judging the pinned sentences."""
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    seconds = sum(event["seconds"] for event in events if event["event"] == "replay")
    whole = max(event["seconds"] for event in events if event["event"] == "step")
    moments = sum(event["event"] == "replay" for event in events)
    return {
        "moments": moments,
        "replay_seconds": round(seconds, 3),
        "training_seconds": round(whole, 1),
        "share": round(seconds / whole, 5),
    }


def main() -> None:
    """Train, compress, measure."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NEXTWORD_RUNS"] = f"{folder}/runs"
        os.environ["NEXTWORD_CACHE"] = f"{folder}/cache"
        import pyppmd
        import torch

        import nextword
        from nextword.base.files import cache_folder
        from nextword.prediction.archive import compress, decompress

        load = os.getloadavg()
        model = nextword.train(name="seeing")
        run = model.opened.run
        prepared = model._prepared()
        text = b"".join(
            b"".join(map(model.vocabulary.piece_bytes, prepared.holdout.document(number).tolist()))
            for number in range(prepared.holdout.num_documents)
        )
        file, packed = Path(folder) / "holdout.txt", Path(folder) / "holdout.nw"
        file.write_bytes(text)
        seconds = {"compress": [], "decompress": [], "PPMd": [], "xz": []}
        for _ in range(REPETITIONS):
            taken, receipt = timed(
                lambda: compress(model.opened, file, packed, force=True, verify=False)
            )
            seconds["compress"].append(taken)
            back = Path(folder) / "back.txt"
            seconds["decompress"].append(
                timed(lambda: decompress(model.opened, packed, back, force=True))[0]  # noqa: B023
            )
            assert back.read_bytes() == text
            seconds["PPMd"].append(timed(lambda: pyppmd.compress(text, max_order=6))[0])
            seconds["xz"].append(timed(lambda: lzma.compress(text, preset=9))[0])
        shutil.rmtree(cache_folder() / "measured", ignore_errors=True)  # nothing measured before
        ruler_seconds, ruler = timed(model.ruler)
        audit_seconds, _ = timed(lambda: model.audit("We are all humans born to make mistakes"))
        result = {
            "date": time.strftime("%Y-%m-%d"),
            "machine": {
                "processor": model.opened.machine.describe()["name"],
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
                "python": platform.python_version(),
                "load_before": load,
            },
            "replay": replay_share(run),
            "kilobytes_per_second": {
                name: round(len(text) / 1000 / statistics.median(times), 1)
                for name, times in seconds.items()
            },
            "compressed": {
                "original_bytes": len(text),
                "ideal_bytes": round(receipt.ideal_bits / 8, 1),
                "bytes": receipt.compressed_bytes,
                "above_ideal": round(receipt.compressed_bytes * 8 / receipt.ideal_bits - 1, 5),
                **receipt.rivals,
            },
            "ruler": {
                "seconds": round(ruler_seconds, 1),
                **{mark.name: round(ruler.value(mark), 4) for mark in ruler.marks},
            },
            "audit_seconds": round(audit_seconds, 2),
        }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
