"""Where a training step's time goes, at several sizes; its products beside the same products alone.

    python benchmarks/step_profile.py [--repetitions 5]

Each shape at its default batch (micro-batches of 4,096 tokens), the default optimizer, windows of
random ids in documents of 300 tokens, on a CPU. A step is its parts, each the median of several
measurements: reading a batch, forward and backward times the number of micro-batches, the update,
and one line in a log. Beside it, interleaved: the matrix products of forward and backward alone, in
the same shapes and precision, three of each (the output, the gradient of the input, and of the
weight). Attention is no such product; its part is named. Inside forward and backward PyTorch's own
profiler says which operations took how much.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from nextword.machine.device import choose_machine
from nextword.machine.options import MachineSettings
from nextword.model.initialize import initialize
from nextword.model.shape import ModelSettings, resolve_shape
from nextword.model.transformer import Transformer
from nextword.training.gradients import update
from nextword.training.journal import Journal
from nextword.training.loop import TrainerState, describe
from nextword.training.optimizers import build_optimizers, groups_of
from nextword.training.options import TrainingSettings
from nextword.training.plan import make_plan
from nextword.training.step import LanguageModelLoss, accumulate

SHAPES = {
    "quick recipe": (ModelSettings(depth=2), 1024, 256, {"batch_tokens": 1024}),
    "default": (ModelSettings(depth=2), 4096, 256, {}),
    "6 x 384": (ModelSettings(depth=6), 4096, 384, {}),
    "8 x 512": (ModelSettings(depth=8), 16_384, 512, {}),
    "6 x 384, 50,304 entries": (ModelSettings(depth=6), 50_304, 384, {}),
    "6 x 384, context 2,048": (ModelSettings(depth=6), 4096, 2048, {}),
}
DOCUMENT = 300
KINDS = {
    "products": ("aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm", "aten::baddbmm"),
    "attention": (
        "aten::_scaled_dot_product_flash_attention_for_cpu",
        "aten::_scaled_dot_product_flash_attention_for_cpu_backward",
        "aten::_scaled_dot_product_attention_math",
    ),
    "copies": ("aten::copy_", "aten::cat", "aten::fill_", "aten::clone"),
}


class Ids:
    """Windows of random ids, cut into documents."""

    def __init__(self, shape, plan):
        """Draw them once."""
        self.shape, self.plan = shape, plan
        source = np.random.default_rng(0)
        self.ids = source.integers(1, shape.vocab_size, 2_000_000)
        self.ids[::DOCUMENT] = 0

    def read(self):
        """Return one micro-batch, inputs and targets."""
        context, rows = self.shape.context, self.plan.micro_rows
        starts = np.random.randint(0, len(self.ids) - context - 1, rows)
        windows = self.ids[starts[:, None] + np.arange(context + 1)]
        return np.ascontiguousarray(windows[:, :-1]), np.ascontiguousarray(windows[:, 1:])


def products_alone(shape, tokens, precision):
    """Return what runs the network's matrix products, and their floating-point operations."""
    width, inner, entries = shape.hidden_size, shape.intermediate_size, shape.vocab_size
    queries = shape.num_attention_heads * shape.head_dim
    keys = shape.num_key_value_heads * shape.head_dim
    layer = [(width, queries + 2 * keys), (queries, width), (width, inner)]
    layer += [(width, inner), (inner, width)]
    matrices = layer * shape.num_hidden_layers
    # The vocabulary's product is done in parts by the loss; so it is here.
    head = min(tokens, 1024)
    tensors = {
        (rows, inputs, outputs): tuple(
            torch.randn(size, dtype=precision)
            for size in ((rows, inputs), (outputs, inputs), (rows, outputs))
        )
        for rows, inputs, outputs in {
            *((tokens, *pair) for pair in layer),
            (head, width, entries),
        }
    }

    def run():
        for inputs, outputs in matrices:
            _three(*tensors[tokens, inputs, outputs])
        for _ in range(tokens // head):
            _three(*tensors[head, width, entries])

    weights = sum(a * b for a, b in matrices) + width * entries
    return run, 6 * tokens * weights


def _three(x, weight, grad):
    torch.mm(x, weight.T)
    torch.mm(grad, weight)
    torch.mm(grad.T, x)


def measure(name, repetitions):
    """Return the table's row of a shape."""
    model_settings, entries, context, more = SHAPES[name]
    machine = choose_machine(MachineSettings(device="cpu"))
    settings = TrainingSettings(**more)
    shape = resolve_shape(model_settings, entries, context)
    plan = make_plan(settings, shape, 10**9, fresh=False, device="cpu", ranks=1)
    model = Transformer(shape)
    initialize(model, 0)
    model.set_precision(machine.precision)
    optimizers = build_optimizers(groups_of(model), settings)
    loss = LanguageModelLoss(model, precision=machine.precision, end_id=0)
    text = Ids(shape, plan)
    tokens, parts = plan.micro_rows * context, -(-plan.rows // plan.micro_rows)
    alone, operations = products_alone(shape, tokens, machine.precision)
    seconds = {key: [] for key in ("data", "forward and backward", "update", "log", "products")}

    def timed(key, action):
        began = time.perf_counter()
        done = action()
        seconds[key].append(time.perf_counter() - began)
        return done

    with tempfile.TemporaryDirectory() as place:
        journal, state = Journal(Path(place)), TrainerState(1, 1.0, 1.0, 1.0, 1.0)
        for number in range(repetitions + 1):
            batch = timed("data", text.read)
            timed(
                "forward and backward",
                lambda batch=batch: accumulate(loss, [batch], tokens, machine.device),
            )
            timed("update", lambda: update(model, optimizers, 1e-3, 1.0))
            timed("log", lambda: journal.write(describe(state)))
            timed("products", alone)
            if not number:
                for row in seconds.values():
                    row.clear()
    with profile(activities=[ProfilerActivity.CPU]) as found:
        accumulate(loss, [text.read()], tokens, machine.device)
    events = found.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    inside = {
        kind: sum(event.self_cpu_time_total for event in events if event.key in keys) / total
        for kind, keys in KINDS.items()
    }
    inside["rest"] = 1 - sum(inside.values())
    median = {key: statistics.median(row) for key, row in seconds.items()}
    many = {"data": parts, "forward and backward": parts, "update": 1, "log": 1}
    step = sum(times * median[key] for key, times in many.items())
    rates = [
        alone / (whole + (update_ + log) / parts + data)
        for alone, whole, update_, log, data in zip(
            *(
                seconds[key]
                for key in ("products", "forward and backward", "update", "log", "data")
            ),
            strict=True,
        )
    ]
    return {
        "parameters": shape.parameters(),
        "tokens_a_step": plan.batch_tokens,
        "tokens_per_second": round(plan.batch_tokens / step),
        "gigaflops_of_products_alone": round(operations / median["products"] / 1e9),
        "gigaflops_of_training": round(parts * operations / step / 1e9),
        "share_of_the_product_rate": [
            round(one, 3) for one in (statistics.median(rates), min(rates), max(rates))
        ],
        "shares_of_a_step": {key: round(many[key] * median[key] / step, 4) for key in many},
        "inside_forward_and_backward": {key: round(one, 3) for key, one in inside.items()},
    }


def main():
    """Measure each shape; write results/step_profile.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    given = parser.parse_args()
    machine = choose_machine(MachineSettings(device="cpu"))
    rows, loads = {}, []
    for name in SHAPES:
        loads.append(round(os.getloadavg()[0], 2))
        rows[name] = measure(name, given.repetitions)
        print(name, json.dumps(rows[name]), flush=True)
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "hardware": machine.describe(),
        "torch": torch.__version__,
        "load_averages": loads,
        "shapes": rows,
    }
    folder = Path(__file__).parent / "results"
    (folder / "step_profile.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
