"""Settings of the vocabulary."""

from dataclasses import dataclass

from nextword.base.options import option

KINDS = ("bpe", "byte", "char")


@dataclass(frozen=True, kw_only=True)
class VocabularySettings:
    """Which pieces the text is made of."""

    kind: str = option(
        "bpe", "subwords learned from the text, its bytes, or its characters", choices=KINDS
    )
    size: int | None = option(
        None,
        "entries of a bpe vocabulary (default: twice the root of the text's bytes, 512 to 50,048)",
        minimum=260,
        unit="entries",
    )
    sample_bytes: int = option(
        32_000_000,
        "how much of the training text the vocabulary is learned from",
        minimum=1000,
        unit="bytes",
    )
    seed: int = option(0, "of that sample", minimum=0)
