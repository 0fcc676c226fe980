"""Read and write model folders.

Hugging Face's layout, with Qwen3's parameter names, so that every tool opens them.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from nextword.base.errors import ModelError
from nextword.model.shape import Shape
from nextword.model.transformer import Transformer

CONFIG, GENERATION_CONFIG, WEIGHTS = "config.json", "generation_config.json", "model.safetensors"
_WEIGHTS_INDEX = "model.safetensors.index.json"
_KINDS = {"qwen3": True, "llama": False}
"""Kinds of network that can be read here, and whether they normalize queries and keys."""


def config_of(shape: Shape, end_id: int, pad_id: int | None) -> dict[str, Any]:
    """Return config.json's content, every field written out."""
    kind = "qwen3" if shape.qk_norm else "llama"
    config: dict[str, Any] = {
        "architectures": ["Qwen3ForCausalLM" if shape.qk_norm else "LlamaForCausalLM"],
        "model_type": kind,
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_attention_heads": shape.num_attention_heads,
        "num_key_value_heads": shape.num_key_value_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": shape.context,
        "rms_norm_eps": shape.rms_norm_eps,
        "rope_theta": shape.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
        "rope_scaling": None,
        "tie_word_embeddings": shape.tie_word_embeddings,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "use_cache": True,
        "bos_token_id": end_id,
        "eos_token_id": end_id,
        "pad_token_id": pad_id,
        "dtype": "float32",
        "torch_dtype": "float32",
    }
    if shape.qk_norm:
        layers = ["full_attention"] * shape.num_hidden_layers
        config.update(
            use_sliding_window=False,
            sliding_window=None,
            max_window_layers=shape.num_hidden_layers,
            layer_types=layers,
        )
    else:
        config.update(mlp_bias=False, pretraining_tp=1)
    return config


def write_model(model: Transformer, folder: Path, end_id: int, pad_id: int | None) -> None:
    """Write config, generation config and weights; the vocabulary writes its own files.

    Args:
        model: the network.
        folder: exists already.
        end_id: the token that ends a text.
        pad_id: the token that fills a row.
    """
    config = config_of(model.shape, end_id, pad_id)
    generation = {
        "bos_token_id": end_id,
        "eos_token_id": end_id,
        "pad_token_id": pad_id,
        "do_sample": True,
    }
    for name, value in ((CONFIG, config), (GENERATION_CONFIG, generation)):
        (folder / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    weights = {name: weight.detach().cpu().clone() for name, weight in model.named_parameters()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def read_shape(folder: Path) -> Shape:
    """Read the sizes from config.json.

    Raises:
        ModelError: the file is missing or damaged, or describes a network that is not known here.
    """
    file = folder / CONFIG
    if not file.is_file():
        raise ModelError(f"{folder}: no {CONFIG} here, so this is not a model folder")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        kind = config["model_type"]
        if kind not in _KINDS:
            raise ModelError(
                f"{file}: networks of kind {kind!r} are not known here; known are "
                f"{', '.join(_KINDS)}"
            )
        _refuse_unknown(file, config)
        heads = config["num_attention_heads"]
        return Shape(
            vocab_size=config["vocab_size"],
            hidden_size=config["hidden_size"],
            intermediate_size=config["intermediate_size"],
            num_hidden_layers=config["num_hidden_layers"],
            num_attention_heads=heads,
            num_key_value_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            context=config["max_position_embeddings"],
            rope_theta=_rope(config).get("rope_theta", config.get("rope_theta", 10_000.0)),
            rms_norm_eps=config["rms_norm_eps"],
            qk_norm=_KINDS[kind],
            tie_word_embeddings=config.get("tie_word_embeddings", False),
        )
    except KeyError as error:
        raise ModelError(f"{file}: the field {error} is missing") from None
    except ValueError as error:
        raise ModelError(f"{file}: not JSON ({error})") from None


def read_model(folder: Path) -> Transformer:
    """Read a model folder, ours or one that `transformers` saved.

    Raises:
        ModelError: a file is missing or damaged, or weights and sizes do not fit each other.
    """
    model = Transformer(read_shape(folder))
    weights = _read_weights(folder)
    expected = {name: weight.shape for name, weight in model.named_parameters()}
    weights.pop("lm_head.weight", None) if model.shape.tie_word_embeddings else None
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
            parameter.copy_(weights[name])
    return model


def _read_weights(folder: Path) -> dict[str, torch.Tensor]:
    index = folder / _WEIGHTS_INDEX
    names = [WEIGHTS]
    if index.is_file():
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    weights: dict[str, torch.Tensor] = {}
    for name in names:
        file = folder / name
        if not file.is_file():
            raise ModelError(f"{file}: no such file; weights are read from safetensors only")
        try:
            weights.update(load_file(file))
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{file}: damaged weights ({error})") from None
    return weights


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    return config.get("rope_parameters") or config.get("rope_scaling") or {}


def _refuse_unknown(file: Path, config: dict[str, Any]) -> None:
    """Refuse what would be read without an error and computed wrong."""
    rope = _rope(config)
    asked = {
        "rope scaling": rope.get("rope_type", rope.get("type", "default")) != "default",
        "attention_bias": config.get("attention_bias"),
        "mlp_bias": config.get("mlp_bias"),
        "use_sliding_window": config.get("use_sliding_window"),
        "hidden_act": config.get("hidden_act", "silu") != "silu",
    }
    for name, present in asked.items():
        if present:
            raise ModelError(
                f"{file}: {name} as set there is not known here, and the logits would be wrong"
            )
