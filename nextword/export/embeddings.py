"""A model folder for sentence-transformers: texts become vectors.

A text's vector is the mean of its last hidden states, of length 1, as `/v1/embeddings` gives it.
"""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

from nextword.export.folders import check_folder, write_folder
from nextword.prediction.loading import Opened

MODULES = "modules.json"
_POOLING, _LENGTH = "1_Pooling", "2_Normalize"
_TYPES = "sentence_transformers.models"


class Exported(NamedTuple):
    """What was written."""

    folder: Path
    bytes: int
    width: int
    """Of a text's vector."""


def write_embeddings(opened: Opened, output: Path, *, force: bool = False) -> Exported:
    """Write a model as a folder that sentence-transformers opens.

    Args:
        opened: any model; its head, if it has one of its own, is left unused.
        output: the folder to make.
        force: whether such a folder that is there may be replaced.

    Raises:
        RunError: the folder is in the way or cannot be written.
    """
    check_folder(output, MODULES, "folder of sentence-transformers", force=force)
    width = opened.model.shape.hidden_size
    parts = (("", "Transformer"), (_POOLING, "Pooling"), (_LENGTH, "Normalize"))
    told = {
        MODULES: [
            {"idx": number, "name": str(number), "path": path, "type": f"{_TYPES}.{kind}"}
            for number, (path, kind) in enumerate(parts)
        ],
        "sentence_bert_config.json": {
            "max_seq_length": opened.model.shape.context, "do_lower_case": False,
        },
        "config_sentence_transformers.json": {"similarity_fn_name": "cosine"},
        f"{_POOLING}/config.json": {
            "word_embedding_dimension": width, "pooling_mode_mean_tokens": True,
            "pooling_mode_cls_token": False, "pooling_mode_max_tokens": False,
        },
    }  # fmt: skip

    def fill(folder: Path) -> None:
        for file in opened.folder.iterdir():
            if file.is_file():  # not the state of training, which is a folder
                shutil.copyfile(file, folder / file.name)
        for place in (_POOLING, _LENGTH):
            (folder / place).mkdir()
        for name, value in told.items():
            (folder / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")

    write_folder(output, fill)
    size = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    return Exported(output, size, width)
