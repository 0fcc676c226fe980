"""Train and generate beside nanoGPT, each in processes of its own, interleaved.

    python benchmarks/versus_nanogpt.py PATH/TO/nanoGPT [--repetitions 7]

Training: nanoGPT's CPU shape (65 characters, 4 layers, 128 wide, context 64, 12 rows), AdamW,
forward, backward, clipping and update. Generation: 6 layers, 384 wide, 256 tokens of context, 256
new tokens, nanoGPT without a cache as it comes. The checkout's model.py is imported; nothing of it
is kept here.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from nextword.machine.device import choose_machine
from nextword.machine.options import MachineSettings
from nextword.model.initialize import initialize
from nextword.model.shape import ModelSettings, resolve_shape
from nextword.model.transformer import Transformer
from nextword.prediction.generate import Reader
from nextword.prediction.options import SamplingSettings
from nextword.prediction.sample import choose
from nextword.targets.batch import Batch
from nextword.training.gradients import update
from nextword.training.optimizers import build_optimizers, groups_of
from nextword.training.options import TrainingSettings
from nextword.training.step import LanguageModelLoss, accumulate

VOCABULARY, CONTEXT, ROWS = 65, 64, 12


def ours(machine):
    """Return our step at nanoGPT's shape, and the number of parameters."""
    shape = resolve_shape(
        ModelSettings(depth=4, hidden_size=128, head_dim=32, num_attention_heads=4),
        VOCABULARY,
        CONTEXT,
    )
    model = Transformer(shape)
    initialize(model, 0)
    model.set_precision(machine.precision)
    settings = TrainingSettings(optimizer="adamw", learning_rate=1e-3)
    optimizers = build_optimizers(groups_of(model), settings)
    loss = LanguageModelLoss(model, precision=machine.precision)

    def step(inputs, targets):
        accumulate(loss, [Batch(inputs, targets)], inputs.size, machine.device)
        update(model, optimizers, 1.0, 1.0)

    return step, shape.parameters()


def theirs(nanogpt):
    """Return nanoGPT's step at its CPU shape, as its train.py does it on a CPU."""
    config = nanogpt.GPTConfig(
        block_size=CONTEXT,
        vocab_size=VOCABULARY,
        n_layer=4,
        n_head=4,
        n_embd=128,
        dropout=0.0,
        bias=False,
    )
    model = nanogpt.GPT(config)
    optimizer = model.configure_optimizers(1e-1, 1e-3, (0.9, 0.99), "cpu")

    def step(inputs, targets):
        _, loss = model(torch.from_numpy(inputs), torch.from_numpy(targets))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step, sum(weight.numel() for weight in model.parameters())


def time_training(step, steps):
    """Return tokens/s over some steps on random text."""
    source = np.random.default_rng(0)
    batches = [source.integers(0, VOCABULARY, (ROWS, CONTEXT + 1)) for _ in range(8)]
    began = time.perf_counter()
    for number in range(steps):
        window = batches[number % 8]
        step(np.ascontiguousarray(window[:, :-1]), np.ascontiguousarray(window[:, 1:]))
    return steps * ROWS * CONTEXT / (time.perf_counter() - began)


def generators(nanogpt):
    """Return our and their generation of n tokens at 6 × 384."""
    shape = resolve_shape(ModelSettings(depth=6, hidden_size=384), VOCABULARY, 256)
    model = Transformer(shape).eval()
    initialize(model, 0)
    config = nanogpt.GPTConfig(
        block_size=256,
        vocab_size=VOCABULARY,
        n_layer=6,
        n_head=6,
        n_embd=384,
        dropout=0.0,
        bias=False,
    )
    peer = nanogpt.GPT(config).eval()
    settings, source = (
        SamplingSettings(temperature=1.0, min_p=0.0),
        torch.Generator().manual_seed(0),
    )

    def write(tokens):
        reader = Reader(model)
        logits = reader.read([0])
        for _ in range(tokens - 1):
            logits = reader.read([choose(logits, settings, source)])

    def write_theirs(tokens):
        with torch.no_grad():
            peer.generate(torch.zeros(1, 1, dtype=torch.long), tokens)

    return write, write_theirs


def measure(which, given):
    """Measure one method in this process: tokens/s of training and of generation."""
    sys.path.insert(0, str(given.nanogpt))
    import model as nanogpt

    machine = choose_machine(MachineSettings(device="cpu")) if which == "nextword" else None
    step, parameters = ours(machine) if machine else theirs(nanogpt)
    write = generators(nanogpt)[0 if machine else 1]
    time_training(step, 10)
    training = time_training(step, given.steps)
    write(32)
    began = time.perf_counter()
    write(256)
    generation = 256 / (time.perf_counter() - began)
    return {"parameters": parameters, "training": training, "generation": generation}


def main():
    """Measure each in a process of its own, interleaved; write results/versus_nanogpt.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nanogpt", type=Path)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--only", choices=("nextword", "nanogpt"))
    given = parser.parse_args()
    if given.only:
        print("RESULT", json.dumps(measure(given.only, given)))
        return
    rows, loads = {"nextword": [], "nanogpt": []}, []
    for _ in range(given.repetitions):
        loads.append(os.getloadavg()[0])
        for which, found in rows.items():
            command = [sys.executable, __file__, str(given.nanogpt), "--only", which]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))
            found.append(json.loads(line.removeprefix("RESULT")))
    machine = choose_machine(MachineSettings(device="cpu"))
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "hardware": machine.describe(),
        "torch": torch.__version__,
        "load_averages": [round(load, 2) for load in loads],
        "parameters": {which: found[0]["parameters"] for which, found in rows.items()},
    }
    for what in ("training", "generation"):
        mine, peers = ([row[what] for row in found] for found in rows.values())
        ratios = [one / two for one, two in zip(mine, peers, strict=True)]
        result[what] = {
            "nextword_tokens_per_second": round(statistics.median(mine)),
            "nanogpt_tokens_per_second": round(statistics.median(peers)),
            "ratio_median": round(statistics.median(ratios), 2),
            "ratio_least": round(min(ratios), 2),
            "ratio_most": round(max(ratios), 2),
        }
    text = json.dumps(result, indent=2)
    print(text)
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    (folder / "versus_nanogpt.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
