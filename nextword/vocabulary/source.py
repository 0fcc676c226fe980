"""Load a tokenizer from elsewhere: any `tokenizer.json` of Hugging Face's `tokenizers`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nextword.base.errors import VocabularyError
from nextword.vocabulary.kinds import RESERVED
from nextword.vocabulary.tokenizer import Vocabulary, kind_of, read_tokenizer, token_name

if TYPE_CHECKING:
    from tokenizers import Tokenizer

KNOWN_ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "[SEP]", "<|im_end|>")
"""Names by which vocabularies in use mark the end of a text, where no configuration says it."""
_ROLES = ("eos_token", "pad_token", "mask_token")


def load_source(place: Path, *, as_it_is: bool = False) -> Vocabulary:
    """Read a vocabulary to train with; end of text, pad and mask are added where it has none.

    Args:
        place: a tokenizer.json, or a folder that holds one.
        as_it_is: add nothing, for a network that has no room for more; a pad and a mask may then
            be missing.

    Raises:
        VocabularyError: there is none, or it is damaged.
    """
    file = place / "tokenizer.json" if place.is_dir() else place
    tokenizer = read_tokenizer(file)
    config = _config(file.parent) if file.name == "tokenizer.json" else {}
    reserved: list[str | None] = []
    for role, ours in zip(_ROLES, RESERVED, strict=True):
        name = token_name(config.get(role))
        if name is None and role == "eos_token":
            name = next((end for end in KNOWN_ENDS if tokenizer.token_to_id(end) is not None), None)
        if name is None or name in reserved or tokenizer.token_to_id(name) is None:
            if as_it_is and role != "eos_token":
                reserved.append(None)
                continue
            name = ours  # three different entries: padding must not be read as an end
        reserved.append(name)
    missing = [name for name in reserved if name and tokenizer.token_to_id(name) is None]
    if missing and as_it_is:
        raise VocabularyError(
            f"{file}: no entry that marks the end of a text; tokenizer_config.json would name it "
            "as eos_token"
        )
    _add(tokenizer, missing)
    return Vocabulary(tokenizer, config.get("nextword_kind") or kind_of(tokenizer), reserved)


def _config(folder: Path) -> dict[str, Any]:
    file = folder / "tokenizer_config.json"
    if not file.is_file():
        return {}
    try:
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise VocabularyError(f"{file}: damaged ({error})") from None
    return config


def _add(tokenizer: "Tokenizer", names: list[str]) -> None:
    if names:
        tokenizer.add_special_tokens(names)
