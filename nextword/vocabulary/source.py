"""Load a tokenizer from elsewhere: any `tokenizer.json` of Hugging Face's `tokenizers`."""

from pathlib import Path
from typing import TYPE_CHECKING

from nextword.base.errors import VocabularyError
from nextword.vocabulary.kinds import RESERVED
from nextword.vocabulary.reading import (
    TOKENIZER,
    TokenizerConfig,
    read_ends,
    read_tokenizer,
    read_tokenizer_config,
)
from nextword.vocabulary.tokenizer import Vocabulary, kind_of

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
    file = place / TOKENIZER if place.is_dir() else place
    tokenizer = read_tokenizer(file)
    is_named = file.name == TOKENIZER
    config = read_tokenizer_config(file.parent) if is_named else TokenizerConfig()
    reserved: list[str | None] = []
    for role, ours in zip(_ROLES, RESERVED, strict=True):
        name = config.name_of(role)
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
    kind, ends = config.nextword_kind or kind_of(tokenizer), []
    if is_named:
        ends = read_ends(file.parent)
    return Vocabulary(tokenizer, kind, reserved, ends=ends)


def _add(tokenizer: "Tokenizer", names: list[str]) -> None:
    if names:
        tokenizer.add_special_tokens(names)
