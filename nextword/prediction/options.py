"""Settings of generation and evaluation."""

from dataclasses import dataclass

from nextword.base.options import option


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """How the next token is chosen among the candidates."""

    temperature: float = option(
        0.7, "divides the logits: below 1 bolder, 0 always the likeliest", minimum=0
    )
    top_k: int = option(0, "choose among the k likeliest only; 0 for all", minimum=0)
    top_p: float = option(
        1.0, "choose among the likeliest that together make this probability", above=0, maximum=1
    )
    min_p: float = option(
        0.1, "drop what is less likely than this share of the likeliest", minimum=0, maximum=1
    )
    repetition_penalty: float = option(
        1.0, "above 1: make tokens that came before less likely", above=0
    )


@dataclass(frozen=True, kw_only=True)
class GenerationSettings(SamplingSettings):
    """How a text is written."""

    max_tokens: int = option(
        256,
        "stop after so many tokens; 0 reads the prompt and writes none",
        minimum=0,
        unit="tokens",
    )
    samples: int = option(1, "how many texts to write", minimum=1)
    seed: int | None = option(
        None, "of the choices", minimum=0, maximum=1 << 40, rule="a new one each time"
    )


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """How a text is scored."""

    batch_tokens: int = option(
        16_384,
        "tokens scored at once; the result does not depend on it",
        minimum=1,
        maximum=1 << 31,
        unit="tokens",
    )
    overlap: float = option(
        0.0,
        "share of each context that repeats the one before, where a text is longer",
        minimum=0,
        maximum=0.95,
        unit="fraction",
    )
