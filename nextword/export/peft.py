"""LoRA adapters as peft reads them: the thin matrices alone, for the model they were taught on.

A run's checkpoint already holds their sum with that model's weights. The adapter is for those who
keep one large model and many small ones beside it.
"""

import json
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from nextword.base.errors import RunError
from nextword.export.folders import check_folder, write_folder
from nextword.model.labels import SequenceClassifier
from nextword.prediction.loading import Opened, run_facts
from nextword.training.lora import SCALE, A, B
from nextword.training.vouched import OPTIMIZER, STATE

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."


class Adapter(NamedTuple):
    """What was written."""

    folder: Path
    bytes: int
    rank: int
    base: str
    """The model folder that it belongs to."""


def write_adapter(opened: Opened, output: Path, *, force: bool = False) -> Adapter:
    """Write what a run has learned with LoRA as a folder that peft opens.

    Args:
        opened: a checkpoint of such a run.
        output: the folder to make.
        force: whether one that is there may be replaced.

    Raises:
        RunError: the run was not taught so, or the folder is in the way or cannot be written.
    """
    state = _state_of(opened)
    pairs = sorted(key.removesuffix(f"/{A}") for key in state if key.endswith(f"/{A}"))
    if not pairs:
        raise RunError(
            f"{opened.name}: was not taught with LoRA; nextword finetune --finetune.lora-rank does"
        )
    check_folder(output, CONFIG, "adapter", force=force)
    weights = {}
    for name in pairs:
        place = _PREFIX + name.removesuffix(".weight")
        for part in (A, B):
            weights[f"{place}.{part}.weight"] = state[f"{name}/{part}"].contiguous()
    rank = state[f"{pairs[0]}/{A}"].shape[0]
    head = _head_of(opened)
    weights |= {_PREFIX + name: weight for name, weight in head.items()}
    base = str(run_facts(opened.run)["warm_start"]) if opened.run else ""
    told = {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if head else "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": float(state[f"{pairs[0]}/{SCALE}"]) * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted({name.split(".")[-2] for name in pairs}),
        "modules_to_save": sorted({name.split(".")[0] for name in head}) or None,
        "inference_mode": True,
    }

    def fill(folder: Path) -> None:
        save_file(weights, folder / WEIGHTS, {"format": "pt"})
        (folder / CONFIG).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")

    write_folder(output, fill)
    return Adapter(output, (output / WEIGHTS).stat().st_size, rank, base)


def _state_of(opened: Opened) -> dict[str, torch.Tensor]:
    file = opened.folder / STATE / OPTIMIZER
    if not file.is_file():
        return {}
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise RunError(f"{file}: damaged ({error})") from None


def _head_of(opened: Opened) -> dict[str, torch.Tensor]:
    """Return a head with labels, which was taught whole."""
    if not isinstance(opened.model, SequenceClassifier):
        return {}
    head = {id(weight) for weight in opened.model.last.parameters()}
    named = opened.model.named_parameters()
    return {name: weight.detach().contiguous() for name, weight in named if id(weight) in head}
