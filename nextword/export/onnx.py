"""ONNX: a model as a graph for onnxruntime, Optimum and Transformers.js, in a page or a program.

The folder is one that these open as it is: the model folder's own files, and the graph with its
weights as onnx/model.onnx, with keys and values of what was read handed in and out.
"""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

from nextword.base.errors import RunError
from nextword.base.files import write_json
from nextword.export.folders import check_folder, write_folder
from nextword.prediction.loading import Opened
from nextword.vocabulary.reading import TOKENIZER, TOKENIZER_CONFIG

FILE = "onnx/model.onnx"
LARGEST = 1_900_000_000
"""Bytes of weights that a graph's file can hold; more are written beside it."""
_KEPT = ("*.json", "*.jinja")
_LEFT = ("model.safetensors.index.json",)


class Exported(NamedTuple):
    """What was written."""

    folder: Path
    bytes: int
    """Of the graph and its weights."""
    inputs: tuple[str, ...]
    """But for those that hold what was read before."""
    keeps: bool
    """Whether keys and values are handed in and out: a token more costs one token's work."""


def write_onnx(opened: Opened, output: Path, *, force: bool = False) -> Exported:
    """Write a model as a folder with an ONNX graph in float32.

    Args:
        opened: a language model, causal or masked, or one with labels; on the CPU.
        output: the folder to make.
        force: whether a folder with such a graph that is there may be replaced.

    Raises:
        RunError: the package `onnx` is missing, or the folder is in the way or cannot be written.
    """
    check_folder(output, FILE, "ONNX folder", force=force)
    try:
        import onnx

        from nextword.export.onnx_graph import build
    except ImportError:
        raise RunError("this needs the package onnx: pip install 'nextword[onnx]'") from None
    graph = build(opened.model)
    weights = sum(len(one.raw_data) for one in graph.graph.initializer)

    def fill(folder: Path) -> None:
        for pattern in _KEPT:
            for file in opened.folder.glob(pattern):
                if file.name not in _LEFT:
                    shutil.copyfile(file, folder / file.name)
        _name_the_beginning(folder, opened)
        place = folder / FILE
        place.parent.mkdir()
        onnx.save(
            graph,
            str(place),
            save_as_external_data=weights > LARGEST,
            location=f"{place.name}_data",
            size_threshold=1024,
        )
        onnx.checker.check_model(str(place))

    write_folder(output, fill)
    size = sum(file.stat().st_size for file in (output / FILE).parent.iterdir())
    inputs = tuple(one.name for one in graph.graph.input if "." not in one.name)
    return Exported(output, size, inputs, keeps=len(inputs) < len(graph.graph.input))


def _name_the_beginning(folder: Path, opened: Opened) -> None:
    """Say in words too that the tokenizer puts a token before each text, if it does.

    Transformers.js's pipeline leaves it out where only the tokenizer itself knows of it, and the
    model reads a text whose beginning it has never seen.
    """
    file = folder / TOKENIZER_CONFIG
    if opened.objective.name != "causal" or not file.is_file():
        return
    described = json.loads((folder / TOKENIZER).read_text(encoding="utf-8"))
    known = json.loads(file.read_text(encoding="utf-8"))
    steps = (described.get("post_processor") or {}).get("single") or [{}]
    first = steps[0].get("SpecialToken", {}).get("id")
    if first is not None and first == known.get("bos_token"):
        write_json(file, {**known, "add_bos_token": True})
