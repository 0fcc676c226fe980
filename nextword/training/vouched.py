"""What a checkpoint's manifest vouches for, and whether it is still as it was saved."""

from collections.abc import Mapping
from pathlib import Path

from nextword.base.cache import digest_of
from nextword.base.errors import ModelError, RunError
from nextword.base.records import read_record
from nextword.model.config import CONFIG
from nextword.model.folder import WEIGHTS_INDEX, weight_files
from nextword.vocabulary.reading import TOKENIZER, TOKENIZER_CONFIG

STATE, MANIFEST = "training", "manifest.json"
OPTIMIZER = "optimizer.safetensors"
ALWAYS = (
    CONFIG,
    TOKENIZER,
    TOKENIZER_CONFIG,
    f"{STATE}/state.json",
    f"{STATE}/{OPTIMIZER}",
)
"""Files that each checkpoint has, beside its weights."""


def find_damage(folder: Path, *, whole: bool) -> str:
    """Name the first file of a checkpoint that is not as it was saved; "" where all are.

    Args:
        folder: of the checkpoint.
        whole: look at the state of training too, and not only at the model.
    """
    manifest = folder / STATE / MANIFEST
    try:
        digests = read_record(manifest, dict[str, str], RunError)
    except RunError:
        return f"{manifest}: missing or damaged, so what it vouches for cannot be trusted"
    for name in ALWAYS:
        if name not in digests:
            return f"{manifest}: says nothing of {name}, so it vouches for nothing"
    there = {str(file.relative_to(folder).as_posix()): file for file in folder.rglob("*")}
    for name, digest in digests.items():
        if not whole and name.startswith(f"{STATE}/"):
            continue
        if (
            name not in there
            or not there[name].is_file()
            or digest_of(there[name], digest) != digest
        ):
            return f"{folder / name[:80]}: missing or changed since it was saved"
    return _find_strange_weights(folder, digests)


def _find_strange_weights(folder: Path, digests: Mapping[str, str]) -> str:
    """Say which of the files that would be read as weights, or tell of them, nobody vouches for."""
    if (folder / WEIGHTS_INDEX).exists() and WEIGHTS_INDEX not in digests:
        return f"{folder / WEIGHTS_INDEX}: was not there when the checkpoint was saved"
    try:
        files = weight_files(folder)
    except ModelError as error:
        return str(error)
    strange = next((file for file in files if file.name not in digests), None)
    return "" if strange is None else f"{strange}: {folder / STATE / MANIFEST} says nothing of it"
