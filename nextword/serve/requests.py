"""What may be asked: each body read through one typed, bounded description."""

import re
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from nextword.prediction.options import SamplingSettings
from nextword.serve.errors import ApiError

Body = TypeVar("Body", bound=Struct)
_ID = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
_IDS = {"type": "array", "items": _ID, "minItems": 1}
Prompt = Annotated[
    str | list[Any],
    Meta(
        description="a text, a list of texts, ids, or a list of lists of ids",
        extra_json_schema={
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}, "minItems": 1},
                _IDS,
                {"type": "array", "items": _IDS, "minItems": 1},
            ]
        },
    ),
]
Count = Annotated[int, Meta(ge=0, le=1 << 31)]
Choices = Annotated[int, Meta(ge=1, le=4096)]
Temperature = Annotated[float, Meta(ge=0, le=1000)]
Share = Annotated[float, Meta(ge=1e-300, le=1)]
Least = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Factor = Annotated[float, Meta(ge=1e-6, le=100)]
Seed = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
Bias = dict[Annotated[str, Meta(pattern="^[0-9]{1,9}$")], Annotated[float, Meta(ge=-100, le=100)]]
Stop = str | Annotated[list[str], Meta(max_length=16)]
LONGEST_STOP, MOST_TOP = 1000, 100
Top = Annotated[int, Meta(ge=0, le=MOST_TOP)]


class StreamOptions(Struct, kw_only=True):
    """What a stream tells beside the text."""

    include_usage: bool | None = None


class Extras(Struct, kw_only=True):
    """What goes beyond OpenAI's: how the text was judged."""

    explain: bool = False


class Sampling(Struct, kw_only=True):
    """How tokens are chosen, for texts and for answers."""

    model: str | None = None
    temperature: Temperature | None = None
    top_p: Share | None = None
    top_k: Annotated[int, Meta(ge=-1, le=1 << 31)] | None = None
    min_p: Least | None = None
    repetition_penalty: Factor | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: Bias | None = None
    seed: Seed | None = None
    stop: Stop | None = None
    n: Choices | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    nextword: Extras | None = None

    def settings(self) -> SamplingSettings:
        """Return how to choose: OpenAI's defaults, temperature 1 and nothing cut off."""
        return SamplingSettings(
            temperature=1.0 if self.temperature is None else self.temperature,
            top_k=max(self.top_k or 0, 0),
            top_p=1.0 if self.top_p is None else self.top_p,
            min_p=self.min_p or 0.0,
            repetition_penalty=self.repetition_penalty or 1.0,
        )

    def stops(self) -> tuple[str, ...]:
        """Return the strings that end a text."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        for one in given:
            if not one or len(one) > LONGEST_STOP:
                raise ApiError(
                    f"stop: a string that ends a text has 1 to {LONGEST_STOP} characters",
                    param="stop",
                )
        return tuple(given)


class CompletionRequest(Sampling, kw_only=True):
    """Of /v1/completions."""

    prompt: Prompt | None = None
    suffix: str | None = None
    max_tokens: Count | None = None
    best_of: Choices | None = None
    echo: bool | None = None
    logprobs: Top | None = None
    add_special_tokens: bool = True
    """Whether the token that a text begins with is put before it."""
    parse_special: bool = False
    """Whether names of special tokens in a text stand for these tokens."""


class Part(Struct, kw_only=True):
    """A part of a message."""

    type: str
    text: str | None = None


class Message(Struct, kw_only=True):
    """One turn of a conversation."""

    role: str
    content: str | list[Part] | None = None
    name: str | None = None

    def words(self, place: int) -> str:
        """Return what is said."""
        if isinstance(self.content, list):
            for part in self.content:
                if part.type != "text" or part.text is None:
                    raise ApiError(
                        f"messages[{place}]: this model reads text, not {part.type!r}",
                        param=f"messages[{place}].content",
                    )
            return "".join(part.text or "" for part in self.content)
        return self.content or ""


class Kind(Struct, kw_only=True):
    """Of an answer: only text is known here."""

    type: str


class ChatRequest(Sampling, kw_only=True):
    """Of /v1/chat/completions."""

    messages: Annotated[list[Message], Meta(min_length=1)]
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Top | None = None
    tools: list[Any] | None = None
    functions: list[Any] | None = None
    response_format: Kind | None = None


class EmbeddingRequest(Struct, kw_only=True):
    """Of /v1/embeddings."""

    input: Prompt
    model: str | None = None
    encoding_format: str | None = None
    dimensions: Count | None = None
    user: str | None = None


class TokenizeRequest(Struct, kw_only=True):
    """Of /tokenize."""

    prompt: str | UnsetType = UNSET
    content: str | UnsetType = UNSET
    model: str | None = None
    add_special_tokens: bool = True
    parse_special: bool = False
    return_token_strs: bool = False


class DetokenizeRequest(Struct, kw_only=True):
    """Of /detokenize."""

    tokens: Annotated[list[Annotated[int, Meta(ge=0, lt=1 << 31)]], Meta(max_length=1 << 20)]
    model: str | None = None


def read_body(raw: bytes, kind: type[Body]) -> Body:
    """Read a body.

    Raises:
        ApiError: it is no JSON, or a field is not what it must be; the field is named.
    """
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at ")
        name = where.strip("`").removeprefix("$").removeprefix(".")
        missing = re.search(r"missing required field `(.+?)`", what)
        if missing:
            name = missing.group(1)
        message = what.replace("`", "")
        raise ApiError(
            f"{name}: {message}" if name else message, param=name or None, code="invalid_value"
        ) from None
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise ApiError(f"the body is no JSON: {error}", code="invalid_json") from None


def texts_of(prompt: Any, name: str = "prompt") -> list[str | list[int]]:
    """Return a prompt's texts, each as text or ids.

    Raises:
        ApiError: it is neither.
    """
    if isinstance(prompt, str):
        return [prompt]
    if prompt and all(isinstance(one, str) for one in prompt):
        return list(prompt)
    rows = prompt if prompt and all(isinstance(one, list) for one in prompt) else [prompt]
    for row in rows:
        if not row or not all(type(id_) is int and 0 <= id_ < 1 << 31 for id_ in row):
            raise ApiError(
                f"{name}: a text, a list of texts, ids, or a list of lists of ids is expected; "
                "none of them empty, but a text",
                param=name,
            )
    return rows
