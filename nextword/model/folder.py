"""Save and load model folders as Hugging Face does: config.json and safetensors.

Hugging Face's layouts, with their parameter names, so that every tool opens them.
"""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from nextword.base.errors import ModelError
from nextword.machine.ranks import whole
from nextword.model.labels import SequenceClassifier
from nextword.model.layouts import CONFIG, Ids, config_of, labels_of, read_config, shape_of
from nextword.model.shape import Shape
from nextword.model.transformer import Transformer

GENERATION_CONFIG, WEIGHTS = "generation_config.json", "model.safetensors"
_WEIGHTS_INDEX = "model.safetensors.index.json"
_HEAD = ("lm_head.", "score.", "dense.", "classifier.")


def write_model(model: Transformer, folder: Path, ids: Ids) -> None:
    """Write config, generation config and weights; the vocabulary writes its own files.

    Args:
        model: the network.
        folder: exists already.
        ids: entries that the configuration names.
    """
    labels = model.labels if isinstance(model, SequenceClassifier) else None
    written = {CONFIG: config_of(model.shape, ids, labels)}
    if labels is None and model.shape.causal:
        written[GENERATION_CONFIG] = {
            "bos_token_id": ids.end,
            "eos_token_id": ids.end,
            "pad_token_id": ids.pad,
            "do_sample": True,
        }
    for name, value in written.items():
        (folder / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    weights = {
        name: whole(weight.detach()).cpu().clone() for name, weight in model.named_parameters()
    }
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def read_shape(folder: Path) -> Shape:
    """Read the sizes from config.json.

    Raises:
        ModelError: the file is missing or damaged, or describes a network that is not known here.
    """
    return shape_of(read_config(folder), folder / CONFIG)


def read_model(folder: Path) -> Transformer:
    """Read a model folder, ours or one that `transformers` saved; a Labeller where it has labels.

    Raises:
        ModelError: a file is missing or damaged, or weights and sizes do not fit each other.
    """
    config = read_config(folder)
    shape, labels = shape_of(config, folder / CONFIG), labels_of(config, folder / CONFIG)
    model = Transformer(shape) if labels is None else SequenceClassifier(shape, labels)
    _load(model, folder)
    return model


def read_body(model: Transformer, folder: Path) -> None:
    """Give a network the body of the one in a folder, and keep its own head.

    Raises:
        ModelError: as `read_model`.
    """
    _load(model, folder, head=False)


def _load(model: Transformer, folder: Path, *, head: bool = True) -> None:
    weights = _read_weights(folder)
    expected = {name: weight.shape for name, weight in model.named_parameters()}
    if not head:
        weights = {name: weight for name, weight in weights.items() if not name.startswith(_HEAD)}
        expected = {name: size for name, size in expected.items() if not name.startswith(_HEAD)}
    elif model.shape.tie_word_embeddings:
        weights.pop("lm_head.weight", None)
    for name in sorted(expected.keys() ^ weights.keys()):
        where = "missing" if name in expected else "of no use to this network"
        raise ModelError(
            f"{folder}: the weight {name} is {where}; the folder is damaged or of another kind"
        )
    for name, weight in weights.items():
        if weight.shape != expected[name]:
            raise ModelError(
                f"{folder}: the weight {name} has shape {tuple(weight.shape)}, config.json says "
                f"{tuple(expected[name])}"
            )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in weights:
                parameter.copy_(weights[name])


def _read_weights(folder: Path) -> dict[str, torch.Tensor]:
    index = folder / _WEIGHTS_INDEX
    names = [WEIGHTS]
    if index.is_file():
        try:
            listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            names = sorted(set(listed))
        except (ValueError, KeyError, AttributeError) as error:
            raise ModelError(f"{index}: damaged ({error})") from None
    weights: dict[str, torch.Tensor] = {}
    for name in names:
        file = folder / name
        if not file.is_file():
            raise ModelError(f"{file}: no such file; weights are read from safetensors only")
        try:
            found = load_file(file)
            # Old folders hold the angles of rotation too, which follow from config.json.
            weights.update({k: w for k, w in found.items() if not k.endswith("inv_freq")})
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{file}: damaged weights ({error})") from None
    return weights
