"""The loss beside its peers on a CPU: time, memory, and the error of each.

    python benchmarks/loss.py [--repetitions 10] [--quick]
    python benchmarks/loss.py --only 1      one of the shapes anew, beside what was measured before
    python benchmarks/loss.py --mixed       only the errors of mixed precision, anew
    python benchmarks/loss.py --tables      the tables of docs/loss.md, from results

Methods, forward and backward, each in a process of its own, interleaved:

    plain       F.cross_entropy(F.linear(x, W).float(), targets)
    torch       F.linear_cross_entropy with its chunks at their defaults
    torch_best  the same with the best of several batch chunk sizes
    nextword    nextword.linear_cross_entropy
    products    the matrix products of nextword's chunks and nothing else: the bound on its speed

Wall and processor time are medians and least of the repetitions; `extra_mb` is the growth of the
peak of resident memory by one forward and backward; errors are against float64 on the same rounded
inputs. Results: results/loss.json, with hardware and load.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

RESULTS = Path(__file__).parent / "results" / "loss.json"
SHAPES = [(2048, 384, 8192), (4096, 384, 8192), (4096, 384, 50304), (2048, 512, 128256)]
QUICK = [(1024, 128, 8192)]
PEERS = ("plain", "torch", "nextword")
METHODS = ("plain", "torch", "torch_best", "nextword", "products")
BEST_CHUNKS = (256, 512, 1024, 2048)
KINDS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def inputs(shape, kind):
    """Return hidden states, weights and targets, the same for every method."""
    tokens, width, entries = shape
    source = torch.Generator().manual_seed(0)
    x = torch.randn(tokens, width, generator=source).to(KINDS[kind])
    w = (torch.randn(entries, width, generator=source) * width**-0.5).to(KINDS[kind])
    targets = torch.randint(0, entries, (tokens,), generator=source)
    return x.requires_grad_(), w.requires_grad_(), targets


def at_the_start(shape):
    """Return inputs as at the start of a training: all entries are about equally likely."""
    x, w, targets = inputs(shape, "bfloat16")
    return x.detach()[:1024].float(), w.detach().float(), targets[:1024]


def frequencies_learned(shape):
    """Return inputs as soon after: each entry is as likely everywhere as it is frequent."""
    _, width, entries = shape
    source = torch.Generator().manual_seed(0)
    common = F.normalize(torch.randn(width, generator=source), dim=0)
    x = 0.3 * torch.randn(1024, width, generator=source) + 0.9 * width**0.5 * common
    likely = -torch.arange(1, entries + 1).float().log()
    w = 0.02 * torch.randn(entries, width, generator=source)
    w += likely[:, None] * common / (0.9 * width**0.5)
    x, w = x.bfloat16().float(), w.bfloat16().float()
    return x, w, torch.multinomial((x @ w.T).softmax(1), 1, generator=source)[:, 0]


MOMENTS = {"at the start": at_the_start, "frequencies learned": frequencies_learned}


def loss_of(method, chunk=None):
    """Return a method as a function of hidden states, weights and targets."""
    if method == "plain":
        return lambda x, w, targets: F.cross_entropy(F.linear(x, w).float(), targets)
    if method == "nextword":
        from nextword import linear_cross_entropy

        return linear_cross_entropy
    options = torch.nn.LinearCrossEntropyOptions()
    if chunk:
        options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=chunk)
    return lambda x, w, targets: F.linear_cross_entropy(x, w, targets, options=options)


def products(x, w):
    """Run the three products of every chunk on buffers made before; return a function."""
    from nextword.kernels.loss_chunks import default_rows

    x, w = x.detach(), w.detach()
    rows = min(default_rows(len(w), x.dtype, x.device), len(x))
    logits = torch.randn(rows, len(w)).to(x.dtype)
    grad_hidden, grad_weight = torch.empty_like(x[:rows]), torch.empty_like(w)

    def run():
        for start in range(0, len(x), rows):
            part = x[start : start + rows]
            space = logits[: len(part)]
            torch.mm(part, w.T, out=space)
            torch.mm(space, w, out=grad_hidden[: len(part)])
            torch.mm(space.T, part, out=grad_weight)

    return run


def peak():
    """Return the peak of this process's resident memory in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1000


def forget_peak():
    """Set the peak back to what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")


def child(method, shape, kind, repeat, chunk):
    """Measure one method in this process."""
    torch.set_num_threads(2)
    torch.set_flush_denormal(True)
    x, w, targets = inputs(shape, kind)
    if method == "products":
        step = products(x, w)
    else:
        loss = loss_of(method, chunk)

        def step():
            x.grad = w.grad = None
            loss(x, w, targets).backward()

    warm = (x[:64].detach().requires_grad_(), w, targets[:64])
    if method != "products":
        loss(*warm).backward()
        w.grad = None
    if method == "nextword":
        # What the small pass lent on would be given back in the large one, and hide part of it.

        from nextword.kernels import loss_rows

        loss_rows._kept.clear()
    forget_peak()
    before = peak()
    step()
    extra = peak() - before
    walls, cpus = [], []
    for _ in range(repeat):
        began, used = time.perf_counter(), time.process_time()
        step()
        walls.append(time.perf_counter() - began)
        cpus.append(time.process_time() - used)
    return {"walls": walls, "cpus": cpus, "extra_mb": extra}


def errors(shape, kind, methods, chunks):
    """Return each method's error against float64 on the same inputs, on part of the tokens.

    Where kind names a moment of training, it is as training has it: float32 inputs and gradients,
    products in bfloat16.
    """
    is_mixed = kind in MOMENTS
    x, w, targets = MOMENTS[kind](shape) if is_mixed else inputs(shape, kind)
    x, w, targets = (value.detach() for value in (x, w, targets))
    if not is_mixed:
        x, targets = x[:512], targets[:512]
    x, w = x.requires_grad_(), w.requires_grad_()
    exact = [value.detach().double().requires_grad_() for value in (x, w)]
    true = F.cross_entropy(F.linear(*exact), targets)
    true.backward()
    found = {}
    for method in methods:
        x.grad = w.grad = None
        with torch.autocast("cpu", torch.bfloat16, enabled=is_mixed):
            loss = loss_of(method, chunks.get(method))(x, w, targets)
        loss.backward()
        found[method] = {
            "loss": abs(loss.item() - true.item()),
            "grad_hidden": _relative(x.grad, exact[0].grad),
            "grad_weight": _relative(w.grad, exact[1].grad),
        }
    return found


def mixed(shapes):
    """Return the errors where weights are float32 and products bfloat16."""
    return [
        {"shape": shape, "kind": kind, "methods": errors(shape, kind, PEERS, {})}
        for shape in shapes
        for kind in MOMENTS
    ]


def growth():
    """Return how each method's error grows from 1 to 1,024 chunks, in bfloat16."""
    rows = {}
    for chunks in (1, 32, 1024):
        x, w, targets = inputs((1024, 64, 8192), "bfloat16")
        exact = [value.detach().double().requires_grad_() for value in (x, w)]
        true = F.cross_entropy(F.linear(*exact), targets)
        true.backward()
        rows[chunks] = {}
        for method in ("torch_best", "nextword"):
            x.grad = w.grad = None
            if method == "nextword":
                from nextword import linear_cross_entropy

                loss = linear_cross_entropy(x, w, targets, chunk_rows=1024 // chunks)
            else:
                loss = loss_of(method, 1024 // chunks)(x, w, targets)
            loss.backward()
            rows[chunks][method] = {
                "loss": loss.item(),
                "true": true.item(),
                "grad_weight": _relative(w.grad, exact[1].grad),
            }
    return rows


def _relative(found, true):
    return float((found.double() - true).norm() / true.norm())


def measure(shape, kind, repetitions):
    """Measure all methods at one shape, each time in new processes, interleaved."""
    best = None
    seconds = {}
    for chunk in BEST_CHUNKS:
        found = ask("torch_best", shape, kind, 1, chunk)
        seconds[chunk] = min(found["walls"])
    best = min(seconds, key=seconds.get)
    chunks = {"torch_best": best}
    rows = {method: {"walls": [], "cpus": [], "extra_mb": []} for method in METHODS}
    for _ in range(max(1, repetitions // 5)):
        for method in METHODS:
            slow = method == "torch" and shape[2] > 10_000
            found = ask(method, shape, kind, 2 if slow else 5, chunks.get(method))
            rows[method]["walls"] += found["walls"]
            rows[method]["cpus"] += found["cpus"]
            rows[method]["extra_mb"].append(found["extra_mb"])
    accuracy = errors(shape, kind, METHODS[:-1], chunks)
    table = {}
    for method, row in rows.items():
        table[method] = {
            "wall_ms": round(1000 * statistics.median(row["walls"]), 1),
            "least_wall_ms": round(1000 * min(row["walls"]), 1),
            "cpu_ms": round(1000 * statistics.median(row["cpus"]), 1),
            "extra_mb": round(statistics.median(row["extra_mb"]), 1),
            **accuracy.get(method, {}),
        }
    mine = table["nextword"]["wall_ms"]
    return {
        "shape": shape,
        "kind": kind,
        "torch_best_chunk": best,
        "methods": table,
        "plain_over_nextword": round(table["plain"]["wall_ms"] / mine, 2),
        "torch_over_nextword": round(table["torch"]["wall_ms"] / mine, 2),
        "torch_best_over_nextword": round(table["torch_best"]["wall_ms"] / mine, 2),
        "share_of_the_products_rate": round(table["products"]["wall_ms"] / mine, 3),
        "share_of_the_plain_memory": round(
            table["nextword"]["extra_mb"] / max(table["plain"]["extra_mb"], 1), 3
        ),
    }


def tables(result):
    """Return the tables of docs/loss.md as Markdown: times, then errors."""
    heads = ["N, D, V", "", "plain", "PyTorch, defaults", "PyTorch, best chunk", "nextword"]
    times = [_line([*heads, "rate", "memory"]), _line(["---"] * 8)]
    heads = ["N, D, V", "", "plain", "PyTorch, defaults", "nextword"]
    errors_table = [_line(heads), _line(["---"] * 5)]
    for row in result["rows"]:
        shape, methods = ", ".join(map(str, row["shape"])), row["methods"]
        times.append(
            _line(
                [
                    shape,
                    row["kind"],
                    *(f"{methods[name]['wall_ms']:,.0f} ms" for name in METHODS[:-1]),
                    f"{100 * row['share_of_the_products_rate']:.0f} %",
                    f"{row['share_of_the_plain_memory']:.2f} of the plain",
                ]
            )
        )
        errors_table.append(_errors_line(row["shape"], row["kind"], methods))
    for row in result["mixed"]:
        errors_table.append(_errors_line(row["shape"], f"mixed, {row['kind']}", row["methods"]))
    return "\n".join(times), "\n".join(errors_table)


def _errors_line(shape, kind, methods):
    cells = (
        ", ".join(f"{methods[name][of]:.1e}" for of in ("loss", "grad_hidden", "grad_weight"))
        for name in PEERS
    )
    return _line([", ".join(map(str, shape)), kind, *cells])


def _line(cells):
    return f"| {' | '.join(cells)} |".replace("|  |", "| |")


def ask(method, shape, kind, repeat, chunk):
    """Run one method in a process of its own."""
    command = [sys.executable, __file__, "--child", method, *map(str, shape), kind, str(repeat)]
    done = subprocess.run([*command, str(chunk or 0)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def again(shape, repetitions):
    """Measure one shape anew; its rows are replaced in results/loss.json, load written down."""
    result = json.loads(RESULTS.read_text())
    places = [place for place, row in enumerate(result["rows"]) if row["shape"] == list(shape)]
    load = os.getloadavg()
    for place, kind in zip(places, KINDS, strict=True):
        result["rows"][place] = measure(shape, kind, repetitions) | {"load_average": load}
        print(json.dumps(result["rows"][place]), flush=True)
        RESULTS.write_text(json.dumps(result, indent=2) + "\n")


def main():
    """Measure; write results/loss.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", type=int, help="one of the shapes, counted from 0")
    parser.add_argument("--mixed", action="store_true", help="only the errors of mixed precision")
    parser.add_argument("--tables", action="store_true", help="print the tables of docs/loss.md")
    parser.add_argument("--child", nargs="+")
    given = parser.parse_args()
    if given.child:
        method, *numbers, kind, repeat, chunk = given.child
        shape = tuple(map(int, numbers))
        print(json.dumps(child(method, shape, kind, int(repeat), int(chunk) or None)))
        return
    if given.tables:
        print(*tables(json.loads(RESULTS.read_text())), sep="\n\n")
        return
    if given.mixed:
        result = json.loads(RESULTS.read_text())
        RESULTS.write_text(json.dumps(result | {"mixed": mixed(SHAPES)}, indent=2) + "\n")
        return
    shapes = QUICK if given.quick else SHAPES
    if given.only is not None:
        again(shapes[given.only], given.repetitions)
        return
    saves = not given.quick
    from nextword.machine.device import choose_machine
    from nextword.machine.options import MachineSettings

    result = {
        "date": time.strftime("%Y-%m-%d"),
        "torch": torch.__version__,
        "hardware": choose_machine(MachineSettings(device="cpu")).describe(),
        "load_average": os.getloadavg(),
        "rows": [],
    }
    for shape in shapes:
        for kind in KINDS:
            result["rows"].append(measure(shape, kind, given.repetitions))
            print(json.dumps(result["rows"][-1]), flush=True)
            if saves:
                RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    result["mixed"] = mixed(shapes)
    result["bfloat16_by_number_of_chunks"] = growth()
    print(json.dumps(result["bfloat16_by_number_of_chunks"], indent=2))
    if saves:
        RESULTS.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
