"""What a checkpoint costs training at 25 million parameters: written meanwhile, and waited for.

    python benchmarks/saving.py [--repetitions 5]

Steps of 256 tokens of a network 6 layers deep and 512 wide, 16,384 entries, AdamW, in four ways in
turns: without saving; saving every seventh step, the last not among them, plainly (safetensors'
own `save_file` and fsync, no digests); as here, and waiting; the same while training goes on. What
a save costs is the difference to the steps without it. The room for copies was made before, as it
is from a run's second save on. Opening the
checkpoint is timed too, the first time (every file is hashed) and the second (large files are known
by size, times and inode). With OMP_NUM_THREADS=1 a core is left for the thread that writes.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

from nextword.cli.program import SPIN_COUNT

os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)  # as the command line does, before torch

import numpy as np
import torch
from safetensors.torch import save_file

from nextword.base.files import sync_file
from nextword.machine.device import choose_machine
from nextword.machine.options import MachineSettings
from nextword.model.folder import read_model
from nextword.model.initialize import initialize
from nextword.model.shape import ModelSettings, resolve_shape
from nextword.model.transformer import Transformer
from nextword.targets.batch import Batch
from nextword.training.checkpoint import TrainingSnapshot, save_checkpoint
from nextword.training.gradients import update
from nextword.training.optimizers import build_optimizers, groups_of
from nextword.training.options import TrainingSettings
from nextword.training.saver import Saver
from nextword.training.step import LanguageModelLoss, accumulate
from nextword.training.vouched import find_damage
from nextword.vocabulary.options import VocabularySettings
from nextword.vocabulary.train import train_vocabulary

VOCABULARY, CONTEXT, STEPS, EVERY = 16_384, 256, 26, 7


def state_of(optimizers):
    """Return all tensors of the optimizers' state by a number."""
    values = [v for one in optimizers for state in one.state.values() for v in state.values()]
    return {str(number): torch.as_tensor(value) for number, value in enumerate(values)}


def seconds_of_opening(folder):
    """Time what a checkpoint's digests take the first and the second time, and reading it."""
    times = []
    for open_it in (find_damage, find_damage, read_model):
        began = time.perf_counter()
        found = open_it(folder, whole=False) if open_it is find_damage else open_it(folder)
        times.append(time.perf_counter() - began)
        assert open_it is read_model or not found
    return times


def main():
    """Measure, and write results/saving.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    given = parser.parse_args()
    machine = choose_machine(MachineSettings(device="cpu"))
    settings = ModelSettings(depth=6, hidden_size=512)
    model = Transformer(resolve_shape(settings, VOCABULARY, CONTEXT))
    initialize(model, 0)
    model.set_precision(machine.precision)
    training = TrainingSettings(optimizer="adamw", learning_rate=1e-3)
    optimizers = build_optimizers(groups_of(model), training)
    loss = LanguageModelLoss(model, precision=machine.precision)
    vocabulary = train_vocabulary(["one two"], 10, VocabularySettings(kind="byte"))
    window = np.random.default_rng(0).integers(0, VOCABULARY, (1, CONTEXT + 1))
    batch = Batch(np.ascontiguousarray(window[:, :-1]), np.ascontiguousarray(window[:, 1:]))

    def plainly(place):
        for number, tensors in enumerate((dict(model.named_parameters()), state_of(optimizers))):
            file = place.with_name(f"plain-{number}.safetensors")
            save_file({key: value.detach() for key, value in tensors.items()}, file)
            sync_file(file)

    def run(place, saves, waits, saver):
        saver.bytes, began = 0, time.perf_counter()
        for step in range(1, STEPS + 1):
            accumulate(loss, [batch], CONTEXT, machine.device)
            update(model, optimizers, 1.0, 1.0)
            if saves == "plainly" and step % EVERY == 0:
                plainly(place)
            elif saves and step % EVERY == 0:
                state = {"step": step, "holdout_loss": None}

                def write(taken, state=state):
                    folder = save_checkpoint(place, taken, vocabulary, state)
                    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())

                saver.save(lambda room: TrainingSnapshot.of(model, optimizers, room), write)
                if waits:
                    saver.finish()
        saver.finish()
        return time.perf_counter() - began, saver.bytes

    rows, loads, opening = [], [], []
    with tempfile.TemporaryDirectory() as root:
        os.environ["NEXTWORD_CACHE"] = str(Path(root) / "cache")
        saver = Saver()
        run(Path(root) / "warm", True, True, saver)
        for number in range(given.repetitions):
            loads.append(round(os.getloadavg()[0], 2))
            place = Path(root) / f"run-{number}"
            without, _ = run(place, False, False, saver)
            plain, _ = run(place, "plainly", True, saver)
            waiting, size = run(place, True, True, saver)
            meanwhile, _ = run(place, True, False, saver)
            saves = STEPS // EVERY
            rows.append([(took - without) / saves for took in (plain, waiting, meanwhile)])
            folder = place / "checkpoints" / f"step-{STEPS // EVERY * EVERY:06d}"
            opening.append(seconds_of_opening(folder))
    plain, waits, lost = (statistics.median(row[part] for row in rows) for part in range(3))
    first, second, reading = (statistics.median(row[part] for row in opening) for part in range(3))
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "hardware": machine.describe(),
        "torch": torch.__version__,
        "load_averages": loads,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "megabytes_a_save": round(size / saves / 1e6, 1),
        "seconds_a_save": {
            "plainly": round(plain, 3),
            "waited_for": round(waits, 3),
            "meanwhile": round(lost, 3),
        },
        "each": [[round(one, 3) for one in row] for row in rows],
        "share_of_plainly": round(lost / plain, 3),
        "share_of_waited_for": round(lost / waits, 3),
        "seconds_of_opening": {
            "digests_first": round(first, 4),
            "digests_again": round(second, 4),
            "reading_the_model": round(reading, 3),
        },
    }
    text = json.dumps(result, indent=2)
    print(text)
    threads = torch.get_num_threads()
    name = "saving.json" if threads > 1 else "saving_beside_a_free_core.json"
    (Path(__file__).parent / "results" / name).write_text(text + "\n")


if __name__ == "__main__":
    main()
