"""Settings of what is asked."""

from dataclasses import dataclass

from nextword.base.errors import SettingsError
from nextword.base.options import option


@dataclass(frozen=True, kw_only=True)
class ObjectiveSettings:
    """What is asked of the network, and how tokens are hidden where they are."""

    name: str = option(
        "causal", "what is asked: causal (GPT: the next token) or masked (BERT: hidden tokens)"
    )
    rate: float = option(
        0.15,
        "share of a row's tokens that are hidden",
        unit="of all",
        above=0,
        maximum=0.9,
    )
    mask_share: float = option(
        0.8, "of the hidden tokens: replaced by the mask", minimum=0, maximum=1
    )
    random_share: float = option(
        0.1, "of the hidden tokens: replaced by any other; the rest stay", minimum=0, maximum=1
    )
    evaluation_seed: int = option(
        0, "of the places hidden in evaluations: the same each time", minimum=0
    )

    def __post_init__(self) -> None:
        """Refuse shares that are more than all."""
        if self.mask_share + self.random_share > 1 + 1e-9:
            raise SettingsError(
                f"objective.mask_share = {self.mask_share} and objective.random_share = "
                f"{self.random_share} are together more than 1"
            )
