"""Texts and answers: from a request to wishes, and from what was written to what is sent."""

import time
import uuid
from asyncio import wrap_future
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from nextword.explanation.trace import trace
from nextword.serve.asking import Asking, Courier, Written
from nextword.serve.chat import begins_with_space, ids_of_messages
from nextword.serve.engine import Engine
from nextword.serve.errors import ApiError
from nextword.serve.growing import Event, Judged, Wish
from nextword.serve.options import ServeSettings
from nextword.serve.requests import ChatRequest, CompletionRequest, Sampling, texts_of
from nextword.serve.tokens import Places, chat_logprobs, completion_logprobs

DEFAULT_TOKENS = 16
"""Of a completion, as OpenAI has it."""


@dataclass
class Order:
    """What a request comes to: texts, and how they are told."""

    engine: Engine
    kind: str
    """Of object: text_completion or chat.completion."""
    model: str
    wishes: list[Wish]
    n: int
    """Choices for each prompt."""
    best_of: int
    prompts: list[str] = field(default_factory=list)
    """As text."""
    echo: bool = False
    logprobs: bool = False
    explain: bool = False
    include_usage: bool = False
    begins_with_space: bool = False
    """Whether a chat's template, and not the answer, has the space before the answer."""
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def is_chat(self) -> bool:
        """Whether a conversation is answered."""
        return self.kind == "chat.completion"

    def head(self, *, chunk: bool) -> dict[str, Any]:
        """Return the fields that every answer has."""
        kind = f"{self.kind}.chunk" if chunk and self.is_chat else self.kind
        before = "chatcmpl" if self.is_chat else "cmpl"
        return {
            "id": f"{before}-{self.id}",
            "object": kind,
            "created": self.created,
            "model": self.model,
        }


def order_completion(
    body: CompletionRequest, engine: Engine, model: str, settings: ServeSettings
) -> Order:
    """Turn a request for completions into texts to be written.

    Raises:
        ApiError: it asks for what cannot be given.
    """
    _check_writes(engine, model)
    if body.suffix:
        raise ApiError("suffix: this model writes from left to right only", param="suffix")
    n, best_of = body.n or 1, body.best_of or body.n or 1
    if best_of < n:
        raise ApiError(f"best_of: must be at least n, {n}", param="best_of")
    if best_of > n and body.stream:
        raise ApiError("best_of: the best is known at the end; not with stream", param="best_of")
    vocabulary, prompts, wishes = engine.vocabulary, [], []
    given = texts_of("" if body.prompt is None else body.prompt)
    _check_choices(len(given) * best_of, settings)
    for one in given:
        if isinstance(one, str):
            ids = vocabulary.encode(one, special=body.parse_special)
            prompts.append(one)
            if body.add_special_tokens or not ids:
                ids = [vocabulary.begin_id, *ids]
        else:
            _check_ids(one, engine)
            ids = one
            prompts.append(vocabulary.decode(one))
        most = _room(body.max_tokens, len(ids), engine, DEFAULT_TOKENS)
        judges = bool(body.echo) and body.logprobs is not None
        top = body.logprobs if body.logprobs is not None or best_of == n else 0
        wishes += _wishes(body, ids, most, best_of, top, judges, engine, settings)
    return Order(
        engine, "text_completion", model, wishes, n, best_of, prompts,
        echo=bool(body.echo), logprobs=body.logprobs is not None, **_told(body),
    )  # fmt: skip


def order_chat(body: ChatRequest, engine: Engine, model: str, settings: ServeSettings) -> Order:
    """Turn a conversation into an answer to be written.

    Raises:
        ApiError: it asks for what cannot be given.
    """
    _check_writes(engine, model)
    for name in ("tools", "functions"):
        if getattr(body, name):
            raise ApiError(f"{name}: this server calls none", param=name, code="unsupported")
    if body.response_format is not None and body.response_format.type != "text":
        raise ApiError("response_format: only text is written", param="response_format")
    if body.top_logprobs and not body.logprobs:
        raise ApiError("top_logprobs: only with logprobs: true", param="top_logprobs")
    n = body.n or 1
    _check_choices(n, settings)
    messages = [
        {"role": message.role, "content": message.words(place)}
        for place, message in enumerate(body.messages)
    ]
    ids = ids_of_messages(engine.opened, messages)
    asked = body.max_completion_tokens
    asked = body.max_tokens if asked is None else asked
    most = _room(asked, len(ids), engine, None)
    top = (body.top_logprobs or 0) if body.logprobs else None
    wishes = _wishes(body, ids, most, n, top, False, engine, settings)
    prompt = engine.vocabulary.decode(ids)
    return Order(
        engine, "chat.completion", model, wishes, n, n, [prompt],
        logprobs=bool(body.logprobs), begins_with_space=begins_with_space(engine.opened),
        **_told(body),
    )  # fmt: skip


def _told(body: Sampling) -> dict[str, Any]:
    options = body.stream_options
    return {
        "explain": body.nextword is not None and body.nextword.explain,
        "include_usage": options is not None and bool(options.include_usage),
    }


def _check_writes(engine: Engine, model: str) -> None:
    if engine.cannot_write:
        why = f"{model} writes no text: {engine.cannot_write}"
        raise ApiError(why, param="model", code="unsupported")


def _check_choices(number: int, settings: ServeSettings) -> None:
    if number > settings.most_choices:
        raise ApiError(
            f"{number} texts in one request; this server writes {settings.most_choices} at most",
            param="n",
        )


def _check_ids(ids: Sequence[int], engine: Engine) -> None:
    entries = len(engine.vocabulary)
    if max(ids) >= entries:
        raise ApiError(
            f"prompt: no entry {max(ids)}; this vocabulary holds ids 0 to {entries - 1}",
            param="prompt",
        )


def _room(asked: int | None, read: int, engine: Engine, default: int | None) -> int:
    """Return how many tokens may be written after a prompt of so many.

    The last one need not be read, so it has its place beside the context.
    """
    context = engine.context
    left = context - read + 1
    most = (left if default is None else min(default, max(left, 1))) if asked is None else asked
    if read > context or most > left:
        more = f" and {most} to be written" if read <= context else ""
        raise ApiError(
            f"the prompt has {read} tokens{more}; this model's context holds {context}",
            param="prompt" if read > context else "max_tokens",
            code="context_length_exceeded",
        )
    return most


def _wishes(
    body: Sampling,
    ids: Sequence[int],
    most: int,
    count: int,
    top: int | None,
    judges: bool,
    engine: Engine,
    settings: ServeSettings,
) -> list[Wish]:
    bias = []
    for name, value in (body.logit_bias or {}).items():
        if int(name) >= len(engine.vocabulary):
            raise ApiError(f"logit_bias: no entry {name}", param="logit_bias")
        bias.append((int(name), value))
    deadline = time.monotonic() + settings.timeout_seconds
    return [
        Wish(
            ids=tuple(ids), most=most, settings=body.settings(), seed=body.seed, number=number,
            stop=body.stops(), bias=tuple(bias), presence=body.presence_penalty or 0.0,
            frequency=body.frequency_penalty or 0.0, top=top, deadline=deadline,
            judges_prompt=judges and (not number or bool(body.stream)),
        )
        for number in range(count)
    ]  # fmt: skip


async def answer(order: Order, courier: Courier) -> dict[str, Any]:
    """Wait for all texts, and write the answer down."""
    texts = await Asking(order.engine, courier, order.wishes).all()
    choices: list[dict[str, Any]] = []
    chosen: list[Written] = []
    for place, prompt in enumerate(order.prompts):
        several = texts[place * order.best_of : (place + 1) * order.best_of]
        judged = several[0].prompt
        if order.best_of > order.n:
            several = sorted(several, key=lambda text: -text.mean)[: order.n]
        chosen += several
        for text in several:
            choices.append(_choice(order, len(choices), prompt, judged, text))
    found = order.head(chunk=False) | {"choices": choices, "usage": _usage(order, texts)}
    if order.explain:
        found["nextword"] = {"explain": await _explained(order, chosen)}
    return found


def _choice(
    order: Order, index: int, prompt: str, judged: Sequence[Judged], text: Written
) -> dict[str, Any]:
    vocabulary = order.engine.vocabulary
    told: dict[str, Any] = {"index": index, "finish_reason": text.reason, "logprobs": None}
    if order.is_chat:
        content = text.text.removeprefix(" ") if order.begins_with_space else text.text
        message = {"role": "assistant", "content": content, "refusal": None}
        told["message"] = message
        if order.logprobs:
            told["logprobs"] = chat_logprobs(vocabulary, text.judged)
        return told
    told["text"] = prompt + text.text if order.echo else text.text
    if order.logprobs:
        before = [*judged] if order.echo else []
        # What is written is spelled by itself, also where the prompt ends within a character.
        places = Places(vocabulary).of(one.id for one in before)
        places += Places(vocabulary, len(prompt)).of(one.id for one in text.judged)
        told["logprobs"] = completion_logprobs(vocabulary, [*before, *text.judged], places)
    return told


def _usage(order: Order, texts: Sequence[Written]) -> dict[str, Any]:
    read = sum(len(wish.ids) for wish in order.wishes[:: order.best_of])
    written = sum(len(text.growing.written) for text in texts)
    reused = sum(text.growing.reused for text in texts[:: order.best_of])
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "prompt_tokens_details": {"cached_tokens": reused},
    }


async def _explained(order: Order, texts: Sequence[Written]) -> list[dict[str, Any]]:
    """Take each text apart as `nextword explain` does, by the very ids that were read and written.

    Of a completion what was asked and what was written, of a conversation the answer, each piece
    by all that stood before it.

    Raises:
        ApiError: it took too long.
    """
    opened, found = order.engine.opened, []
    for text in texts:
        first, *ids = (*text.growing.wish.ids, *text.growing.written)
        last = len(text.growing.written) if order.is_chat else len(ids)

        def work(first: int = first, ids: list[int] = ids, last: int = last) -> dict[str, Any]:
            judged = trace(
                opened.model, opened.vocabulary, "", ids=ids, begin=first, top=5, name=order.model
            )
            shown = opened.vocabulary.decode(ids[len(ids) - last :])
            positions = judged.positions[len(ids) - last :]
            return replace(judged, text=shown, positions=positions).as_dict()

        order.engine.look_at_the_clock(text.growing.wish.deadline)
        found.append(await wrap_future(order.engine.call(work)) if last else {})
    return found


async def stream(asking: Asking, order: Order) -> AsyncIterator[bytes]:
    """Yield server-sent events, as tokens become certain."""
    tell = _Chunks(order)
    for number in range(len(asking.texts)):
        if order.is_chat:
            yield tell.chunk(number, {"delta": {"role": "assistant", "content": ""}}, None, None)
    try:
        async for number, event in asking.events():
            for part in tell.parts(number, event):
                yield part
    except ApiError as error:
        yield tell.event(error.as_dict())
        yield b"data: [DONE]\n\n"
        return
    if order.explain:
        try:
            told = {"explain": await _explained(order, asking.texts)}
        except ApiError as error:
            yield tell.event(error.as_dict())
            yield b"data: [DONE]\n\n"
            return
        yield tell.event(order.head(chunk=True) | {"choices": [], "nextword": told})
    if order.include_usage:
        usage = {"choices": [], "usage": _usage(order, asking.texts)}
        yield tell.event(order.head(chunk=True) | usage)
    yield b"data: [DONE]\n\n"


class _Chunks:
    """Writes down what is sent of a text while it grows."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.places: dict[int, Places] = {}
        self.begun: set[int] = set()
        self.encode: Callable[[Any], bytes] = msgspec.json.Encoder().encode

    def event(self, value: Any) -> bytes:
        return b"data: " + self.encode(value) + b"\n\n"

    def chunk(self, number: int, said: dict[str, Any], logprobs: Any, reason: str | None) -> bytes:
        choice = {"index": number, **said, "logprobs": logprobs, "finish_reason": reason}
        usage = {"usage": None} if self.order.include_usage else {}
        return self.event(self.order.head(chunk=True) | {"choices": [choice]} | usage)

    def parts(self, number: int, event: Event) -> list[bytes]:
        """Return the events for what has become certain of a text."""
        order, found = self.order, []
        vocabulary, prompt = order.engine.vocabulary, order.prompts[number // order.best_of]
        if number not in self.places:
            self.places[number] = Places(vocabulary, len(prompt))
            if order.echo:
                judged = list(event.prompt) if order.logprobs else []
                found.append(self._told(number, prompt, judged, Places(vocabulary), None))
        text = "".join(piece.text for piece in event.pieces)
        if text and order.begins_with_space and number not in self.begun:
            self.begun.add(number)
            text = text.removeprefix(" ")
        if event.pieces or event.reason:
            judged = [piece.judged for piece in event.pieces]
            found.append(self._told(number, text, judged, self.places[number], event.reason))
        return found

    def _told(
        self, number: int, text: str, judged: list[Judged], places: Places, reason: str | None
    ) -> bytes:
        order, logprobs = self.order, None
        vocabulary = order.engine.vocabulary
        if order.is_chat:
            if order.logprobs and judged:
                logprobs = chat_logprobs(vocabulary, judged)
            return self.chunk(
                number, {"delta": {"content": text} if text else {}}, logprobs, reason
            )
        if order.logprobs and judged:
            ids = (one.id for one in judged)
            logprobs = completion_logprobs(vocabulary, judged, places.of(ids))
        return self.chunk(number, {"text": text}, logprobs, reason)
