"""What vLLM asks of a model folder, looked up without a GPU and without vLLM.

Source: the code of vLLM 0.33: its registry of architectures, `supports_head_size` of its ways to
attend, its loading of weights, its check of ids. It serves a folder as it is; each line here is one
thing that could keep it from doing so.
"""

import json
from collections.abc import Callable, Iterator

from safetensors import SafetensorError, safe_open

from nextword.base.errors import ModelError
from nextword.explanation.checks import Check
from nextword.model.config import CONFIG
from nextword.model.folder import weight_files
from nextword.model.layouts import LABELS
from nextword.prediction.loading import Opened

ARCHITECTURES = ("Qwen3ForCausalLM", "LlamaForCausalLM")
WITH_LABELS = tuple(name.replace("ForCausalLM", LABELS) for name in ARCHITECTURES)
"""Of which it makes classifiers itself, from the networks above."""
EIGHTH, WIDEST = 8, 256
"""Widths of heads that FlashAttention takes, its first choice on a GPU: multiples of 8, to 256."""
ON_CPU = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
_GPUS = (1, 2, 4, 8)
"""Numbers of GPUs that a model is usually divided among."""


def vllm_checks(opened: Opened) -> Iterator[Check]:
    """Look up, one after the other, what vLLM asks of a model's folder.

    Args:
        opened: any model.
    """
    for check in CHECKS:
        yield check(opened)


def check_architecture(opened: Opened) -> Check:
    """Ask whether vLLM has the network."""
    config = json.loads((opened.folder / CONFIG).read_text("utf-8"))
    named = ", ".join(config.get("architectures") or ["none"])
    known = (*ARCHITECTURES, *WITH_LABELS)
    served = named in known
    return Check(
        "network known to vLLM",
        served,
        named if served else f"{named}; of those known here it has {', '.join(known)}",
    )


def check_heads(opened: Opened) -> Check:
    """Ask whether its fastest way to attend takes heads of this width."""
    width = opened.model.shape.head_dim
    served = width % EIGHTH == 0 and width <= WIDEST
    says = f"{width} wide" + ("" if width in ON_CPU else "; not on a CPU, which takes fewer widths")
    if not served:
        says = (
            f"{width} wide; FlashAttention takes multiples of {EIGHTH} up to {WIDEST}: train with "
            "--model.head-dim 64"
        )
    return Check("heads as wide as kernels take", served, says)


def check_weights(opened: Opened) -> Check:
    """Ask whether the files hold each weight once, under the name that is looked for."""
    name = "weights by the names that are read"
    found: list[str] = []
    try:
        for file in weight_files(opened.folder):
            with safe_open(file, "pt") as weights:
                found += weights.keys()
    except (SafetensorError, OSError, ModelError) as error:
        return Check(name, False, str(error))
    expected = {weight for weight, _ in opened.model.named_parameters()}
    wrong = sorted(expected ^ set(found)) or sorted({one for one in found if found.count(one) > 1})
    return Check(name, not wrong, f"{len(found)} weights" if not wrong else f"not so: {wrong[0]}")


def check_ids(opened: Opened) -> Check:
    """Ask whether each id of the vocabulary has its row, for prompts with others are refused."""
    entries, rows = len(opened.vocabulary), opened.model.shape.vocab_size
    return Check("a row for each entry", entries <= rows, f"{entries:,} entries, {rows:,} rows")


def check_tokenizer(opened: Opened) -> Check:
    """Ask whether the files that its tokenizer is read from are there."""
    needed = ("tokenizer.json", "tokenizer_config.json")
    missing = [name for name in needed if not (opened.folder / name).is_file()]
    says = f"missing: {', '.join(missing)}" if missing else " and ".join(needed)
    return Check("tokenizer beside the weights", not missing, says)


CHECKS: tuple[Callable[[Opened], Check], ...] = (
    *(check_architecture, check_heads, check_weights, check_ids, check_tokenizer),
)


def how_to_serve(opened: Opened) -> str:
    """Return the command that serves it there in float32, and among how many GPUs it divides."""
    shape = opened.model.shape
    queries, keys = shape.num_attention_heads, shape.num_key_value_heads
    fitting = [
        str(many)
        for many in _GPUS
        if queries % many == 0
        and (keys % many == 0 or many % keys == 0)
        and shape.intermediate_size % many == 0
    ]
    return (
        f"vllm serve {opened.folder} --dtype float32  "
        f"(--tensor-parallel-size: {' or '.join(fitting)})"
    )
