"""Settings of what a run shows of itself."""

from dataclasses import dataclass

from nextword.base.options import option


@dataclass(frozen=True, kw_only=True)
class ExplanationSettings:
    """Which sentences are judged again and again while the model learns."""

    pin: tuple[str, ...] = option(
        (),
        "a sentence to judge while the model learns, for `nextword replay`; may be repeated",
        rule="the worked example and three from the hold-out",
    )
    replay_every: int | None = option(
        None,
        "steps between two judgements of the pinned sentences",
        minimum=1,
        unit="steps",
        rule="a fortieth of all",
    )
