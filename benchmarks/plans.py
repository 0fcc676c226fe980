"""Hold `nextword plan`'s reckoning of time against runs that others have published.

    python benchmarks/plans.py [--fit]

`published.json` has their figures with sources. What the reckoning takes from them (which share of
the peak products reach on an A100 and an H100, and the bytes of passes) was found on the runs on
A100s of 80 GB and on at most 16 H100s; the others were kept aside. `--fit` finds it again.
"""

import argparse
import itertools
import json
import math
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from nextword.explanation import step_time
from nextword.explanation.layouts import Way, plan_layouts
from nextword.explanation.step_time import Fleet, Work, step_seconds
from nextword.machine.accelerators import find_accelerator
from nextword.model.shape import ModelSettings, Shape, resolve_shape
from nextword.training.options import TrainingSettings

HERE = Path(__file__).parent
CARDS = {
    "a100_80gb": find_accelerator("a100", {}),
    "a100_40gb": replace(find_accelerator("a100", {}), memory=40, bandwidth=1.555),
    "h100_80gb": find_accelerator("h100", {}),
}
# At 500 of 700 watts: power grows with the third power of the clock.
CLOCK = (500 / 700) ** (1 / 3)
GRAND_TETON = replace(
    find_accelerator("h100", {}), memory=96, bandwidth=2.4, watts=500,
    reached=find_accelerator("h100", {}).reached * CLOCK,
    attention=find_accelerator("h100", {}).attention * CLOCK,
)  # fmt: skip
LLAMA = Shape(
    vocab_size=128_256, hidden_size=4096, intermediate_size=14_336, num_hidden_layers=32,
    num_attention_heads=32, num_key_value_heads=8, head_dim=128, context=8192, qk_norm=False,
    tie_word_embeddings=False,
)  # fmt: skip


def mpt(layers, width, context):
    """Return a network with as many weights in each layer as MPT's."""
    return Shape(
        vocab_size=50_368, hidden_size=width, intermediate_size=round(8 * width / 3),
        num_hidden_layers=layers, num_attention_heads=width // 64,
        num_key_value_heads=width // 64, head_dim=64, context=context,
    )  # fmt: skip


def reckoned(run, networks, cards=CARDS):
    """Return the tokens a second of a card in one of the runs of MPT."""
    name, context, count, kind, micro, parts, recompute, gathered, added, _ = run
    shape = mpt(*networks[name], context)
    fleet = Fleet(card=cards[kind], count=count, per_machine=8)
    work = Work(
        rows=micro * parts, micro_rows=micro, recompute=recompute, compiled=False,
        optimizer="adamw", sent_bytes=2, added_bytes=added, stays=gathered == "once",
    )  # fmt: skip
    return micro * parts * context / step_seconds(shape, fleet, "fsdp", work)


def is_fitted(run):
    """Whether a run is one of those that the constants were found on."""
    return run[3] == "a100_80gb" or (run[3] == "h100_80gb" and run[2] <= 16)


def spread(ratios):
    """Sum up how far the reckoned lies from the published."""
    return {
        "runs": len(ratios),
        "least": round(min(ratios), 3),
        "median": round(statistics.median(ratios), 3),
        "most": round(max(ratios), 3),
        "within_10_per_cent": round(sum(abs(one - 1) <= 0.1 for one in ratios) / len(ratios), 3),
        "within_25_per_cent": round(sum(abs(one - 1) <= 0.25 for one in ratios) / len(ratios), 3),
    }


def fit(runs, networks):
    """Find shares and bytes anew, by the squares of the logarithms' differences."""
    chosen, best = None, math.inf
    grids = ([0.75, 0.77, 0.79, 0.81, 0.83], [0.61, 0.63, 0.65, 0.67, 0.69], range(120, 241, 20))
    for a100, h100, passes in itertools.product(*grids):
        step_time.PLAIN_PASSES = passes
        share = {"a": a100, "h": h100}
        cards = {kind: replace(card, reached=share[kind[0]]) for kind, card in CARDS.items()}
        off = sum(
            math.log(reckoned(run, networks, cards) / run[-1]) ** 2
            for run in runs
            if is_fitted(run)
        )
        if off < best:
            chosen, best = (a100, h100, passes), off
    print("reached on A100 and H100, bytes of passes:", chosen)


def torchtitan(shape, fleet, work):
    """Return the tokens a second of a card, with every other product computed a second time."""
    seconds = step_seconds(shape, fleet, "fsdp", work)
    if work.recompute == "selective":  # of products, this program keeps all
        layers = shape.matrix_parameters() - shape.vocab_size * shape.hidden_size
        seconds += layers * work.rows * shape.context / fleet.card.products
    return work.rows * shape.context / (work.tensor * work.context) / seconds


LLAMAS = {
    "8b": LLAMA,
    "70b": replace(
        LLAMA, hidden_size=8192, intermediate_size=28_672, num_hidden_layers=80,
        num_attention_heads=64,
    ),
    "405b": replace(
        LLAMA, hidden_size=16_384, intermediate_size=53_248, num_hidden_layers=126,
        num_attention_heads=128,
    ),
}  # fmt: skip


def llama_float8(runs, bfloat16):
    """Compare with runs whose layers are computed together, or whose rows are shared.

    Products in float8 are faster by what the first run was beside the same one in bfloat16; all
    others were kept aside.
    """

    def rate(run, faster):
        name, cards, tensor, context, length, rows, recompute, _ = run
        card = replace(GRAND_TETON, reached=faster * GRAND_TETON.reached)
        work = Work(
            rows=rows, micro_rows=rows, recompute=recompute, compiled=True, optimizer="adamw",
            sent_bytes=2, tensor=tensor, context=context,
        )  # fmt: skip
        fleet = Fleet(card=card, count=cards, per_machine=8)
        return torchtitan(replace(LLAMAS[name], context=length), fleet, work)

    wanted = rate(runs[0], 1.0) * runs[0][-1] / bfloat16
    least, most = 1.0, 2.0
    for _ in range(40):
        middle = (least + most) / 2
        least, most = (middle, most) if rate(runs[0], middle) < wanted else (least, middle)
    return {
        "float8_faster": round(least, 3),
        "runs": [
            [*run, round(rate(run, least)), round(rate(run, least) / run[-1], 3)]
            for run in runs[1:]
        ],
    }


def llama(runs):
    """Compare rate and memory with torchtitan's, whose layout this program nearly has."""
    found = []
    for cards, compiled, rate, gib in runs:
        fleet = Fleet(card=GRAND_TETON, count=cards, per_machine=8)
        work = Work(
            rows=2, micro_rows=2, recompute="selective", compiled=compiled, optimizer="adamw",
            sent_bytes=2,
        )  # fmt: skip
        mine = torchtitan(LLAMA, fleet, work)
        held = plan_layouts(
            LLAMA, TrainingSettings(optimizer="adamw", micro_batch_tokens=16_384), fleet,
            batch_tokens=2 * cards * LLAMA.context, tokens=1.0, ways=[Way("fsdp", "selective")],
        )[0].memory_bytes / 2**30  # fmt: skip
        found.append({
            "cards": cards, "compiled": compiled, "published": rate, "reckoned": round(mine),
            "ratio": round(mine / rate, 3), "published_GiB": gib, "rehearsed_GiB": round(held, 1),
        })  # fmt: skip
    return found


def llama_paper(runs):
    """Compare with Llama 3's own training, whose layouts have a pipeline, which is not here.

    What is compared is the work within: layers by eight cards, rows shared. A stage takes a share
    of a row's time, and a step as many stages' as there are rows and, divided by the virtual stages
    of a card, others to wait for; each virtual stage is one layer, the least there can be. Adding
    gradients up is taken to be hidden. FLOP are counted as in PaLM's paper, with all of attention's
    square.
    """
    card = find_accelerator("h100", {})
    found = []
    for run in runs:
        cards, tensor, context, stages, length, published = run
        shape = replace(LLAMAS["405b"], context=length)
        fleet = Fleet(card=card, count=tensor * context, per_machine=8)
        work = Work(
            rows=1, micro_rows=1, recompute="none", compiled=True, optimizer="adamw",
            sent_bytes=2, tensor=tensor, context=context,
        )  # fmt: skip
        of_one, of_two = (
            step_seconds(shape, fleet, "ddp", replace(work, rows=rows)) for rows in (1, 2)
        )
        rows = PAPERS_TOKENS // length * tensor * context * stages // cards
        virtual = -(-shape.num_hidden_layers // stages)
        seconds = (of_two - of_one) / stages * (rows + (stages - 1) / virtual)
        looks = 12 * shape.num_hidden_layers * shape.hidden_size * length
        work_done = PAPERS_TOKENS * (6 * shape.parameters() + looks)
        mine = work_done / seconds / cards / 1e12
        found.append([*run, round(mine), round(mine / published, 3)])
    return found


PAPERS_TOKENS = 1 << 24


def h200():
    """Compare with what plain modules of this design did on an H200 (docs/gpu.md)."""
    shape = resolve_shape(ModelSettings(depth=12), 23_808, 1024)
    fleet = Fleet(card=find_accelerator("h200", {}), count=1, per_machine=8)
    found = []
    for optimizer, measured in (("adamw", 603_800), ("muon", 548_400)):
        work = Work(rows=32, micro_rows=32, recompute="none", compiled=True, optimizer=optimizer)
        mine = 32 * 1024 / step_seconds(shape, fleet, "ddp", work)
        found.append({
            "optimizer": optimizer, "measured": measured, "reckoned": round(mine),
            "ratio": round(mine / measured, 3),
        })  # fmt: skip
    return found


def muon():
    """Reckon which share of a step Muon takes beside AdamW, on eight cards with 16,384 tokens."""
    found = []
    for depth, width, context in ((12, 768, 1024), (24, 2048, 2048), (32, 4096, 4096)):
        shape = resolve_shape(ModelSettings(depth=depth, hidden_size=width), 50_304, context)
        fleet = Fleet(card=find_accelerator("h100", {}), count=8, per_machine=8)
        for way in ("ddp", "fsdp"):
            work = Work(
                rows=16_384 // context, micro_rows=16_384 // context, recompute="none",
                compiled=True, optimizer="muon",
            )  # fmt: skip
            both = [
                step_seconds(shape, fleet, way, replace(work, optimizer=optimizer))
                for optimizer in ("adamw", "muon")
            ]
            found.append({
                "parameters": shape.parameters(), "way": way,
                "share_of_a_step": round(1 - both[0] / both[1], 4),
            })  # fmt: skip
    return found


WORKED = {
    "7 B on 256 H100": (
        *("--model.depth", "32", "--model.hidden-size", "4096", "--model.context", "4096"),
        *("--devices", "256", "--training.batch-tokens", "4194304"),
    ),
    "70 B on 1,024 H100": (
        *("--model.depth", "80", "--model.hidden-size", "8192", "--model.context", "8192"),
        *("--model.intermediate-size", "28672", "--model.num-key-value-heads", "8"),
        *("--model.num-attention-heads", "64", "--vocabulary.size", "128256"),
        *("--devices", "1024", "--training.batch-tokens", "16777216"),
    ),
}
"""What docs/scale.md tells of: the words after `nextword plan`."""


def worked():
    """Plan the examples."""
    found = {}
    for name, words in WORKED.items():
        done = subprocess.run(
            [sys.executable, "-m", "nextword", "plan", *words, "--json"],
            capture_output=True, check=True,
        )  # fmt: skip
        found[name] = json.loads(done.stdout)
    return found


def main():
    """Compare, print, and write results/plans.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fit", action="store_true", help="find the constants again")
    given = parser.parse_args()
    published = json.loads((HERE / "published.json").read_text())
    runs, networks = published["mpt"]["runs"], published["mpt"]["networks"]
    if given.fit:
        fit(runs, networks)
        return
    ratios = [reckoned(run, networks) / run[-1] for run in runs]
    pairs = list(zip(runs, ratios, strict=True))
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "mpt_fitted": spread([ratio for run, ratio in pairs if is_fitted(run)]),
        "mpt_kept_aside": spread([ratio for run, ratio in pairs if not is_fitted(run)]),
        "mpt_on_128_to_512_h100": spread(
            [ratio for run, ratio in pairs if run[3][0] == "h" and run[2] >= 128]
        ),
        "farthest": [
            [*run, round(ratio, 3)]
            for run, ratio in sorted(pairs, key=lambda p: -abs(p[1] - 1))[:8]
        ],
        "llama-3.1-8b": llama(published["llama-3.1-8b"]["runs"]),
        "llama-3.1-float8": llama_float8(
            published["llama-3.1-float8"]["runs"], published["llama-3.1-8b"]["runs"][1][2]
        ),
        "llama-3-paper": llama_paper(published["llama-3-paper"]["runs"]),
        "h200": h200(),
        "muon_on_8": muon(),
        "worked": worked(),
    }
    text = json.dumps(result, indent=1)
    print(text)
    (HERE / "results" / "plans.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
