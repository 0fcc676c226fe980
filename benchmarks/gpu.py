"""The loss beside its peers on a GPU: time, TFLOP/s, peak memory and error; one command.

    python benchmarks/gpu.py [--quick | --table]

At (8192, 2048, 128256) and (4096, 4096, 128256) in bfloat16, forward and backward: the plain loss,
the plain loss under torch.compile, PyTorch's chunked loss, nextword's, and Liger's and QuACK's
where they are installed (what is not there is said). Half of the targets are uniform, a quarter is
one common entry and a quarter ignored. Interleaved; medians of the repetitions; errors against
float64 on a part of the tokens. Results: results/gpu.json, written after each shape. Stops with one
line where there is no GPU.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F

SHAPES = [(8192, 2048, 128256), (4096, 4096, 128256)]
QUICK = [(1024, 512, 32000)]
RESULTS = Path(__file__).parent / "results" / "gpu.json"


def methods():
    """Return name → function of hidden states, weights and targets; and what is missing, why."""
    from nextword import linear_cross_entropy

    def plain(x, w, targets):
        return F.cross_entropy(F.linear(x, w).float(), targets)

    # Compiled for the shape at hand: one kernel for all shapes would be slower.
    compiled = torch.compile(plain, dynamic=False)
    found = {"plain": plain, "compiled": compiled, "nextword": linear_cross_entropy}
    missing = {}
    for name, peer in (("torch", _torch), ("liger", _liger), ("quack", _quack)):
        try:
            found[name] = peer()
        except Exception as problem:
            missing[name] = repr(problem)[:200]
    return found, missing


def _torch():
    options = torch.nn.LinearCrossEntropyOptions()
    chunked = F.linear_cross_entropy
    return lambda x, w, targets: chunked(x, w, targets, options=options)


def _liger():
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    return liger_fused_linear_cross_entropy


def _quack():
    from quack.linear_cross_entropy import chunked_linear_cross_entropy

    return lambda x, w, targets: chunked_linear_cross_entropy(x, w, targets, reduction="mean")


def inputs(shape):
    """Return hidden states, weights and targets on the GPU."""
    tokens, width, entries = shape
    source = torch.Generator("cuda").manual_seed(0)
    kind = {"device": "cuda", "dtype": torch.bfloat16}
    x = torch.randn(tokens, width, generator=source, **kind)
    w = torch.randn(entries, width, generator=source, **kind) * width**-0.5
    targets = torch.randint(0, entries, (tokens,), generator=source, device="cuda")
    targets[::4], targets[1::4] = 7, -100
    return x.requires_grad_(), w.requires_grad_(), targets


def once(loss, x, w, targets):
    """Run forward and backward; return seconds and peak memory beyond the inputs in MB."""
    x.grad = w.grad = None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    began = time.perf_counter()
    loss(x, w, targets).backward()
    torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    return seconds, (torch.cuda.max_memory_allocated() - before) / 1e6


def error(loss, shape):
    """Return the errors against float64 on 256 tokens."""
    x, w, targets = inputs(shape)
    x, targets = x[:256].detach().requires_grad_(), targets[:256]
    exact = [value.detach().double().requires_grad_() for value in (x, w)]
    true = F.cross_entropy(F.linear(*exact), targets)
    true.backward()
    found = loss(x, w, targets)
    found.backward()
    rows = {"loss": abs(found.item() - true.item())}
    for name, mine, theirs in zip(("grad_hidden", "grad_weight"), (x, w), exact, strict=True):
        rows[name] = float((mine.grad.double() - theirs.grad).norm() / theirs.grad.norm())
    return rows


def _tried(function, *arguments):
    try:
        return function(*arguments)
    except Exception as problem:
        return {"error": repr(problem)[:200]}


def measure(shape, repetitions):
    """Measure all methods at one shape, interleaved."""
    torch._dynamo.reset()
    losses, refused = methods()
    found = {name: {"seconds": [], "mb": []} for name in losses}
    x, w, targets = inputs(shape)
    for repetition in range(repetitions + 2):
        for name, loss in losses.items():
            if name in refused:
                continue
            try:
                seconds, memory = once(loss, x, w, targets)
            except Exception as problem:
                refused[name] = repr(problem)[:200]
                continue
            if repetition >= 2:
                found[name]["seconds"].append(seconds)
                found[name]["mb"].append(memory)
    del x, w, targets
    flops = 6 * shape[0] * shape[1] * shape[2]
    table = {name: {"refused": why} for name, why in refused.items()}
    for name, row in found.items():
        if name in refused:
            continue
        seconds = statistics.median(row["seconds"])
        table[name] = {
            "ms": round(1000 * seconds, 2),
            "least_ms": round(1000 * min(row["seconds"]), 2),
            "tflops": round(flops / seconds / 1e12, 1),
            "peak_mb": round(statistics.median(row["mb"])),
            **_tried(error, losses[name], shape),
        }
    return {"shape": shape, "methods": table}


def table(result):
    """Return the table of docs/loss.md as Markdown."""
    lines = [
        "| N, D, V | | time | TFLOP/s | memory beyond the inputs | errors of the gradients |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in result["rows"]:
        shape = ", ".join(map(str, row["shape"]))
        lines += [
            f"| {shape} | {name} | {found['ms']:.1f} ms | {found['tflops']:.0f} | "
            f"{found['peak_mb']:,} MB | {found['grad_hidden']:.1e}, {found['grad_weight']:.1e} |"
            for name, found in row["methods"].items()
            if "ms" in found
        ]
    return "\n".join(lines)


def main():
    """Measure; write results/gpu.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--table", action="store_true", help="print the table of docs/loss.md")
    given = parser.parse_args()
    if given.table:
        print(table(json.loads(RESULTS.read_text())))
        return
    if not torch.cuda.is_available():
        raise SystemExit("no CUDA GPU here: nothing is measured")
    from nextword.kernels.loss_chunks import _gives_float32 as gives_float32

    result = {
        "date": time.strftime("%Y-%m-%d"),
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name(),
        "products_come_out_in_float32": gives_float32(torch.bfloat16, torch.device("cuda", 0)),
        "rows": [],
    }
    for shape in QUICK if given.quick else SHAPES:
        result["rows"].append(measure(shape, 5 if given.quick else 10))
        print(json.dumps(result["rows"][-1], indent=2), flush=True)
        if not given.quick:
            RESULTS.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
