"""Save and load model folders as Hugging Face does: config.json and safetensors.

Hugging Face's layouts, with their parameter names, so that every tool opens them.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from msgspec import Struct
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from nextword.base.errors import ModelError
from nextword.base.records import read_record
from nextword.machine.copies import Copies
from nextword.machine.parts import Part, is_divided, part_of, resting_weights
from nextword.model.config import CONFIG, read_config
from nextword.model.labels import SequenceClassifier
from nextword.model.layouts import Ids, LabelHead, config_of, labels_of, shape_of
from nextword.model.shape import Shape
from nextword.model.transformer import Transformer

GENERATION_CONFIG, WEIGHTS = "generation_config.json", "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
MOST_FILE_BYTES = 5_000_000_000
"""Of weights in one file; more stand in several, with an index, as other programs write them."""
_METADATA = {"format": "pt"}
_HEAD = ("lm_head.", "score.", "dense.", "classifier.")


class Snapshot(NamedTuple):
    """A network as it is at one moment: nothing that training does reaches it any more."""

    shape: Shape
    labels: LabelHead | None
    weights: dict[str, Copies]
    """By file, and in it by their names in Hugging Face's layouts."""

    @classmethod
    def of(cls, model: Transformer, room: "Snapshot | None" = None) -> "Snapshot":
        """Copy a network's weights; of divided ones this process's rows.

        Args:
            model: the network.
            room: an earlier copy that nobody needs any more, to be written over.
        """
        labels = model.labels if isinstance(model, SequenceClassifier) else None
        weights = {name: part_of(weight) for name, weight in resting_weights(model)}
        before = {} if room is None else room.weights
        copies = {
            file: Copies.of(
                {name: weights[name] for name in names},
                before.get(file),
                divided=is_divided(model),
            )
            for file, names in _in_files(weights).items()
        }
        return cls(model.shape, labels, copies)

    def write_rows(self, folder: Path) -> None:
        """Write this process's rows of divided weights into the files that the first laid out."""
        for file, copies in self.weights.items():
            copies.write_rows(folder / file, _METADATA)


def _in_files(weights: Mapping[str, Part]) -> dict[str, list[str]]:
    """Divide weights among files, in their order: one where they fit into it."""
    pieces: list[list[str]] = [[]]
    held = 0
    for name, part in weights.items():
        size = part.shape.numel() * part.rows.element_size()
        if pieces[-1] and held + size > MOST_FILE_BYTES:
            pieces.append([])
            held = 0
        pieces[-1].append(name)
        held += size
    if len(pieces) == 1:
        return {WEIGHTS: pieces[0]}
    stem, end = WEIGHTS.split(".")
    return {f"{stem}-{n:05d}-of-{len(pieces):05d}.{end}": p for n, p in enumerate(pieces, 1)}


def write_model(model: Transformer | Snapshot, folder: Path, ids: Ids) -> dict[str, str]:
    """Write config, generation config and weights; the vocabulary writes its own files.

    Args:
        model: the network, or a copy of it.
        folder: exists already.
        ids: entries that the configuration names.

    Returns:
        digests of large files by name, which the manifest of a checkpoint holds.
    """
    taken = model if isinstance(model, Snapshot) else Snapshot.of(model)
    written = {CONFIG: config_of(taken.shape, ids, taken.labels)}
    if taken.labels is None and taken.shape.causal:
        written[GENERATION_CONFIG] = {
            "bos_token_id": ids.end,
            "eos_token_id": [ids.end, *ids.more_ends] if ids.more_ends else ids.end,
            "pad_token_id": ids.pad,
            "do_sample": True,
        }
    for name, value in written.items():
        (folder / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    if len(taken.weights) > 1:
        index = _index_of(taken.weights)
        (folder / WEIGHTS_INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return {file: one.write(folder / file, _METADATA) for file, one in taken.weights.items()}


def _index_of(weights: Mapping[str, Copies]) -> dict[str, Any]:
    """Say which weight stands in which file."""
    return {
        "metadata": {"total_size": sum(copies.size for copies in weights.values())},
        "weight_map": {name: file for file, copies in weights.items() for name in copies.tensors},
    }


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
    _refuse_larger(shape, folder)
    model = Transformer(shape) if labels is None else SequenceClassifier(shape, labels)
    _load(model, folder)
    return model


def read_weights(model: Transformer, folder: Path) -> None:
    """Give a network the weights in a folder; of divided ones this process reads its rows alone.

    Raises:
        ModelError: as `read_model`.
    """
    _load(model, folder)


def read_body(model: Transformer, folder: Path) -> None:
    """Give a network the body of the one in a folder, and keep its own head.

    Raises:
        ModelError: as `read_model`.
    """
    _load(model, folder, head=False)


def _refuse_larger(shape: Shape, folder: Path) -> None:
    """Refuse sizes that the weights' files do not hold, before room is made for them.

    What fits roughly is built, and then compared weight by weight.
    """
    layers = elements = 0
    for file in weight_files(folder):
        try:
            with safe_open(file, "pt") as opened:
                for name in opened.keys():  # noqa: SIM118 - no mapping
                    layers += name.endswith("input_layernorm.weight")
                    elements += math.prod(opened.get_slice(name).get_shape())
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{file}: damaged weights ({error})") from None
    many, deep = shape.parameters(), shape.num_hidden_layers
    if many > 2 * elements + SLACK or deep > layers + SLACK // 1000:
        raise ModelError(
            f"{folder / CONFIG}: describes {many:,} weights in {deep:,} layers, and the files hold "
            f"{elements:,} in {layers:,}; the folder is damaged or of another kind"
        )


SLACK = 1 << 20
"""Weights that may be built for nothing before it is said which are missing."""


def _load(model: Transformer, folder: Path, *, head: bool = True) -> None:
    parts = {name: part_of(weight) for name, weight in resting_weights(model)}
    weights = _read_weights(folder, parts if is_divided(model) else None)
    expected = {name: part.shape for name, part in parts.items()}
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
        _refuse_no_number(weight.rows, f"{folder}: the weight {name}")
    for name, weight in weights.items():
        parts[name].rows.copy_(weight.rows)


def _refuse_no_number(weight: torch.Tensor, what: str) -> None:
    """Refuse a weight that nothing can be computed with."""
    if weight.dtype not in NUMBERS:
        kinds = ", ".join(str(kind).removeprefix("torch.") for kind in NUMBERS)
        kind = str(weight.dtype).removeprefix("torch.")
        raise ModelError(f"{what} is of type {kind}; known are {kinds}")
    # One pass: a sum is a number only where all are, but for a sum that is too large.
    if not weight.sum(dtype=torch.float64).isfinite() and not weight.isfinite().all():
        raise ModelError(f"{what} holds NaN or infinity; training that made it had failed")


NUMBERS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def weight_files(folder: Path) -> list[Path]:
    """List the files of a folder's weights.

    Raises:
        ModelError: the index is damaged, or names a file outside the folder, or one is missing, or
            a link that leads out.
    """
    index = folder / WEIGHTS_INDEX
    names = [WEIGHTS]
    if index.is_file():
        names = sorted(set(read_record(index, _Index, ModelError).weight_map.values()))
    for name in names:
        if name != Path(name).name:
            raise ModelError(f"{index}: names {name[:80]!r}, which does not lie in this folder")
        if not os.path.isfile(folder / name):
            raise ModelError(f"{folder / name[:80]}: no such file; weights are safetensors only")
        if not _stays(folder, folder / name):
            raise ModelError(
                f"{folder / name[:80]}: a link that leads out of its folder; copy the file there"
            )
    return [folder / name for name in names]


def _stays(folder: Path, file: Path) -> bool:
    """Whether a file lies in its folder, or in the Hub's cache of the model, made of links."""
    whole = folder.resolve()
    roots = [whole, whole.parent.parent] if whole.parent.name == "snapshots" else [whole]
    return any(file.resolve().is_relative_to(root) for root in roots)


class _Index(Struct):
    """What is read of the index of weights in several files."""

    weight_map: dict[str, str]


def _read_weights(folder: Path, parts: Mapping[str, Part] | None = None) -> dict[str, Part]:
    """Read a folder's weights, or of each those rows that `parts` names."""
    weights: dict[str, Part] = {}
    for file in weight_files(folder):
        try:
            if parts is None:
                found = {name: Part(one, one.shape) for name, one in load_file(file).items()}
            else:
                found = _read_rows(file, parts)
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{file}: damaged weights ({error})") from None
        # Old folders hold the angles of rotation too, which follow from config.json.
        weights.update({k: w for k, w in found.items() if not k.endswith("inv_freq")})
    return weights


def _read_rows(file: Path, parts: Mapping[str, Part]) -> dict[str, Part]:
    found = {}
    with safe_open(file, "pt") as opened:
        for name in opened.keys():  # noqa: SIM118 - no mapping
            there = opened.get_slice(name)
            shape, rows = torch.Size(there.get_shape()), torch.empty(0)
            part = parts.get(name)
            if part is not None and part.shape == shape and part.rows.numel():
                first, left = part.first, part.left
                rows = there[first : first + len(part.rows)]
                if part.is_block:
                    end = first + len(part.rows)
                    rows = there[first:end, left : left + part.rows.shape[1]]
            found[name] = Part(rows, shape)
    return found
