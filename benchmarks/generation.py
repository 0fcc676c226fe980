"""Generation at 50 million parameters beside the memory's limit and transformers, interleaved.

    python benchmarks/generation.py [--repetitions 5] [--tokens 64]

Random weights, written as a model folder that both open, on a CPU; one text, and eight at once.
The limit of one text is the time in which the weights can be read once: float32 bytes of all
matrices, by the rate at which a gigabyte is added up. transformers generates greedily by its own
`generate` with its cache, eight texts as eight rows of one batch.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch

from nextword.machine.device import choose_machine
from nextword.machine.options import MachineSettings
from nextword.model.folder import read_model, write_model
from nextword.model.initialize import initialize
from nextword.model.layouts import Ids
from nextword.model.shape import ModelSettings, resolve_shape
from nextword.model.transformer import Transformer
from nextword.prediction.generate import Reader
from nextword.prediction.options import SamplingSettings
from nextword.prediction.sample import choose

ENTRIES, CONTEXT, PROMPT = 16_384, 1024, 32
GREEDY = SamplingSettings(temperature=0)


def ours(model, prompt, texts, tokens):
    """Write with the program's own reader."""
    reader = Reader(model)
    logits = reader.read(prompt).expand(texts, -1)
    source = torch.Generator().manual_seed(0)
    for number in range(tokens):
        ids = [choose(row, GREEDY, source) for row in logits]
        if number + 1 < tokens:
            if not number and texts > 1:
                reader.select([0] * texts)
            logits = reader.read_each(ids)


def theirs(model, prompt, texts, tokens):
    """Write with transformers' generate."""
    ids = torch.tensor([prompt] * texts)
    model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=tokens,
        min_new_tokens=tokens,
        do_sample=False,
    )


def read_rate(block):
    """Return the bytes a second at which memory is read: the best of three sums of a gigabyte."""
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        block.sum()
        seconds.append(time.perf_counter() - began)
    return block.nbytes / min(seconds)


def main():
    """Measure all, interleaved; write results/generation.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64)
    given = parser.parse_args()
    import transformers

    machine = choose_machine(MachineSettings(device="cpu"))
    shape = resolve_shape(ModelSettings(depth=8, hidden_size=640), ENTRIES, CONTEXT)
    model = Transformer(shape)
    initialize(model, 0)
    with tempfile.TemporaryDirectory() as place:
        write_model(model, Path(place), Ids(end=0, pad=0, mask=None))
        model = read_model(Path(place)).eval()
        peer = transformers.AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32).eval()
    matrices = sum(weight.nbytes for weight in model.parameters() if weight.ndim == 2)
    block = torch.ones(1 << 28)
    prompt = torch.randint(1, ENTRIES, (PROMPT,), generator=torch.Generator().manual_seed(0))
    prompt = prompt.tolist()
    writers = {"nextword": (ours, model), "transformers": (theirs, peer)}
    rows = {(which, texts): [] for which in writers for texts in (1, 8)}
    rates, loads = [], []
    with torch.inference_mode():
        for write, network in writers.values():
            write(network, prompt, 1, 4)
        for _ in range(given.repetitions):
            loads.append(os.getloadavg()[0])
            rates.append(read_rate(block))
            for (which, texts), found in rows.items():
                write, network = writers[which]
                began = time.perf_counter()
                write(network, prompt, texts, given.tokens)
                found.append((time.perf_counter() - began) / given.tokens)
    limits = [matrices / rate for rate in rates]
    result = {
        "date": time.strftime("%Y-%m-%d"),
        "hardware": machine.describe(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "load_averages": [round(load, 2) for load in loads],
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "milliseconds_a_token": {
            "limit of one text": spread([1000 * one for one in limits]),
            **{
                f"{which}, {texts} at once": spread([1000 * one for one in found])
                for (which, texts), found in rows.items()
            },
        },
        "one_text_by_limit": ratio(rows["nextword", 1], limits),
        "transformers_by_nextword": {
            texts: ratio(rows["transformers", texts], rows["nextword", texts]) for texts in (1, 8)
        },
        "eight_texts_by_one": ratio(rows["nextword", 8], rows["nextword", 1]),
    }
    text = json.dumps(result, indent=2)
    print(text)
    (Path(__file__).parent / "results" / "generation.json").write_text(text + "\n")


def spread(values):
    """Return median, least and most."""
    return [round(value, 2) for value in (statistics.median(values), min(values), max(values))]


def ratio(ones, others):
    """Return median, least and most of the ratios of each repetition."""
    return spread([one / other for one, other in zip(ones, others, strict=True)])


if __name__ == "__main__":
    main()
