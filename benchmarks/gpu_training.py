"""Training on one GPU beside its peers: tokens a second, MFU, memory, the first step; one command.

    python benchmarks/gpu_training.py [--tiny] [--table]

12 layers, 768 wide, context 1,024, 23,808 entries, 32 rows a step, bfloat16, documents of about 300
tokens. Interleaved, medians of the repetitions:

- nanogpt: the network and step that nanoGPT describes (learned positions, LayerNorm, GELU, tied
  embedding, fused AdamW), written anew here, plainly and under torch.compile
- qwen3: transformers' Qwen3 of nextword's sizes, under torch.compile, plain cross-entropy, AdamW
- nextword: its own loop, with Muon or AdamW, documents apart or not, layers compiled or not

MFU is 6 FLOP a parameter and token, and attention's 12·L·D·T, over what the card's table says of
bfloat16 without sparsity. What nextword's update takes of a step is measured beside. --tiny runs
the same lines on a CPU in a minute, which says nothing of speed.
Results: results/gpu_training.json.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from nextword.machine.device import Machine
from nextword.model.initialize import initialize
from nextword.model.shape import ModelSettings, resolve_shape
from nextword.model.transformer import Transformer
from nextword.targets.batch import Batch
from nextword.training.gradients import Gradient, move
from nextword.training.layers import layer_runner
from nextword.training.loop import Callback, Plan, Training, run_loop
from nextword.training.optimizers import build_optimizers, groups_of
from nextword.training.options import TrainingSettings
from nextword.training.step import LanguageModelLoss, add_gradients

RESULTS = Path(__file__).parent / "results" / "gpu_training.json"
RATES = {"A100": 312, "H100": 989, "H200": 989, "B200": 2250, "L40S": 362, "4090": 165}
"""TFLOP/s of bfloat16 with float32 sums, dense: NVIDIA's data sheets."""
LARGE = {"layers": 12, "width": 768, "context": 1024, "entries": 23_808, "rows": 32, "steps": 20}
TINY = {"layers": 2, "width": 64, "context": 128, "entries": 512, "rows": 4, "steps": 3}
REPETITIONS, WARM = 3, 5


class NanoGPT(nn.Module):
    """What nanoGPT's README and paper describe: GPT-2's network, without biases or dropout."""

    def __init__(self, size):
        """Build it with GPT-2's first weights."""
        super().__init__()
        width, entries = size["width"], size["entries"]
        self.tokens = nn.Embedding(entries, width)
        self.places = nn.Embedding(size["context"], width)
        self.heads = max(1, width // 64)
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {
                    "first": nn.LayerNorm(width, bias=False),
                    "attend": nn.Linear(width, 3 * width, bias=False),
                    "gather": nn.Linear(width, width, bias=False),
                    "second": nn.LayerNorm(width, bias=False),
                    "widen": nn.Linear(width, 4 * width, bias=False),
                    "narrow": nn.Linear(4 * width, width, bias=False),
                }
            )
            for _ in range(size["layers"])
        )
        self.last = nn.LayerNorm(width, bias=False)
        for weight in self.parameters():
            if weight.ndim == 2:
                nn.init.normal_(weight, std=0.02)

    def forward(self, ids, targets):
        """Return the mean loss."""
        x = self.tokens(ids) + self.places.weight[: ids.shape[1]]
        for layer in self.layers:
            joint = layer["attend"](layer["first"](x)).chunk(3, dim=-1)
            split = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in joint)
            mixed = F.scaled_dot_product_attention(*split, is_causal=True)
            x = x + layer["gather"](mixed.transpose(1, 2).flatten(2))
            x = x + layer["narrow"](F.gelu(layer["widen"](layer["second"](x))))
        logits = F.linear(self.last(x), self.tokens.weight)
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


class Peer:
    """A peer's step: autocast, backward, clipping, fused AdamW."""

    def __init__(self, size, device, model, loss, *, compiled):
        """Take a network and what gives its loss for ids and targets."""
        self.size, self.device = size, device
        self.model = model.to(device)
        self.loss = torch.compile(loss) if compiled else loss
        decayed = [weight for weight in model.parameters() if weight.ndim == 2]
        rest = [weight for weight in model.parameters() if weight.ndim != 2]
        groups = [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, 6e-4, (0.9, 0.95), fused=True)

    def run(self, steps):
        """Take some steps."""
        for step in range(steps):
            ids = batch(self.size, step)
            window = torch.from_numpy(ids)
            if self.device.type == "cuda":
                window = window.pin_memory()
            window = window.to(self.device, non_blocking=True)
            with torch.autocast(self.device.type, dtype=torch.bfloat16):
                loss = self.loss(window[:, :-1], window[:, 1:])
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)


def nanogpt(size, device, *, compiled):
    """Return nanoGPT's step."""
    model = NanoGPT(size)
    return Peer(size, device, model, model, compiled=compiled)


def qwen3(size, device):
    """Return the step of transformers' Qwen3, of nextword's own sizes."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    shape = shape_of(size)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=shape.vocab_size,
            hidden_size=shape.hidden_size,
            intermediate_size=shape.intermediate_size,
            num_hidden_layers=shape.num_hidden_layers,
            num_attention_heads=shape.num_attention_heads,
            num_key_value_heads=shape.num_key_value_heads,
            head_dim=shape.head_dim,
            max_position_embeddings=shape.context,
            tie_word_embeddings=True,
            use_cache=False,
        )
    )

    def loss(ids, targets):
        logits = model(input_ids=ids).logits
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())

    return Peer(size, device, model, loss, compiled=True)


class Ours:
    """nextword's own loop: what `nextword train` runs, without evaluations and files."""

    def __init__(self, size, device, *, optimizer, apart, compiled):
        """Build the network and what `nextword train` gives to its loop."""
        shape = shape_of(size)
        self.model = Transformer(shape)
        initialize(self.model, 0)
        self.model.to(device)
        self.model.set_precision(torch.bfloat16)
        settings = TrainingSettings(optimizer=optimizer)
        self.plan = Plan(1 << 30, size["rows"], size["rows"], size["context"], compiled=compiled)
        self.model.model.runner = layer_runner(device, self.plan, lengths_vary=False)
        self.loss = LanguageModelLoss(
            self.model, precision=torch.bfloat16, end_id=0 if apart else None
        )
        self.size, self.machine = size, Machine(device, torch.bfloat16)
        self.training = Training(
            self.loss,
            self.model,
            build_optimizers(groups_of(self.model), settings),
            lambda step, rows: Batch(*halves(batch(size, step)[rows])),
            self.plan,
            settings,
            self.machine,
        )

    def run(self, steps):
        """Take some steps, as many as there are; figures are read as the loop reads them."""
        from nextword.training.schedule import Pace

        self.training.pace = Pace(steps)
        run_loop(self.training, 0, [Callback(1, lambda state: None, when="later")])

    def share_of_update(self):
        """Return which part of a step the update takes, waiting after each."""
        times = []
        for step in range(WARM):
            self.machine.synchronize()
            began = time.perf_counter()
            ids = halves(batch(self.size, step))
            add_gradients(self.loss, [ids], ids[0].size, self.machine.device)
            self.machine.synchronize()
            between = time.perf_counter()
            gradient = Gradient.of(self.model, self.training.optimizers)
            move(self.training.optimizers, gradient, 1e-3, 1.0, None)
            self.machine.synchronize()
            ended = time.perf_counter()
            times.append((ended - between) / (ended - began))
        return statistics.median(times)


def shape_of(size):
    """Return nextword's sizes."""
    settings = ModelSettings(depth=size["layers"], hidden_size=size["width"])
    return resolve_shape(settings, size["entries"], size["context"])


def batch(size, step):
    """Return a step's windows, (B, T + 1): documents of about 300 tokens, each begun by a 0."""
    source = np.random.default_rng(step)
    ids = source.integers(1, size["entries"], (size["rows"], size["context"] + 1))
    ids[source.random(ids.shape) < 1 / 300] = 0
    return ids


def halves(window):
    """Return inputs and targets."""
    return window[:, :-1], window[:, 1:]


def methods(size, device):
    """Return name → what builds it; the last of nextword's is what a run does by itself."""

    def ours(**how):
        return lambda: Ours(size, device, **how)

    return {
        "nanogpt": lambda: nanogpt(size, device, compiled=False),
        "nanogpt, compiled": lambda: nanogpt(size, device, compiled=True),
        "qwen3 of transformers, compiled": lambda: qwen3(size, device),
        "nextword, eager": ours(optimizer="muon", apart=True, compiled=False),
        "nextword, AdamW, one text": ours(optimizer="adamw", apart=False, compiled=True),
        "nextword, AdamW": ours(optimizer="adamw", apart=True, compiled=True),
        "nextword": ours(optimizer="muon", apart=True, compiled=True),
    }


def flops(model, size):
    """Return the operations of a token, forward and backward."""
    parameters = sum(weight.numel() for weight in model.parameters())
    return 6 * parameters + 12 * size["layers"] * size["width"] * size["context"]


def measure(size, device):
    """Run all methods, one after the other, and over again."""
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    found, steps = {}, size["steps"]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    rate = next((1e12 * rate for card, rate in RATES.items() if card in name), None)
    built = {}
    for method, build in methods(size, device).items():
        try:
            began = time.perf_counter()
            it = build()
            it.run(1)
            synchronize()
            first = time.perf_counter() - began
            it.run(WARM)
        except Exception as problem:  # a peer that is not there, or a card that is too small
            found[method] = {"missing": repr(problem)[:300]}
            continue
        built[method] = it
        parameters = sum(weight.numel() for weight in it.model.parameters())
        found[method] = {"first_step_s": round(first, 1), "parameters": parameters}
    speeds = {method: [] for method in built}
    for _ in range(REPETITIONS):
        for method, it in built.items():
            synchronize()
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            began = time.perf_counter()
            it.run(steps)
            synchronize()
            tokens = steps * size["rows"] * size["context"]
            speeds[method].append(tokens / (time.perf_counter() - began))
            if device.type == "cuda":
                peak = torch.cuda.max_memory_allocated() / 1e9
                found[method]["peak_gb_all_models_held"] = round(peak, 2)
    for method, it in built.items():
        speed = statistics.median(speeds[method])
        found[method]["tokens_per_second"] = round(speed)
        found[method]["spread"] = round(max(speeds[method]) / min(speeds[method]) - 1, 3)
        if rate:
            found[method]["mfu"] = round(speed * flops(it.model, size) / rate, 3)
        if isinstance(it, Ours):
            found[method]["update_share"] = round(it.share_of_update(), 3)
    versions = {"torch": torch.__version__, "cuda": torch.version.cuda}
    return {"device": name, **versions, "size": size, "methods": found}


def table(results):
    """Return the results as Markdown."""
    lines = [
        f"{results['device']}, torch {results['torch']}",
        "",
        "| | tokens/s | MFU | update | first step |",
        "|---|---|---|---|---|",
    ]
    for method, row in results["methods"].items():
        if "missing" in row:
            lines.append(f"| {method} | {row['missing']} | | | |")
            continue
        mfu = f"{100 * row['mfu']:.1f} %" if "mfu" in row else ""
        share = f"{100 * row['update_share']:.1f} %" if "update_share" in row else ""
        lines.append(
            f"| {method} | {row['tokens_per_second']:,} | {mfu} | {share} | "
            f"{row['first_step_s']} s |"
        )
    return "\n".join(lines)


def main():
    """Measure, print the table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="the same lines on a CPU")
    parser.add_argument("--table", action="store_true", help="print what was measured before")
    given = parser.parse_args()
    if given.table:
        print(table(json.loads(RESULTS.read_text())))
        return
    if not given.tiny and not torch.cuda.is_available():
        raise SystemExit("no CUDA GPU here; --tiny runs the same lines on a CPU")
    torch.set_float32_matmul_precision("high")
    device = torch.device("cpu" if given.tiny else "cuda")
    results = measure(TINY if given.tiny else LARGE, device)
    print(table(results))
    if not given.tiny:
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
