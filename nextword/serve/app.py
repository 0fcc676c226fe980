"""The doors of the endpoint: paths, and what stands behind each."""

import asyncio
import base64
import contextlib
import functools
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from msgspec import Struct
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from nextword.serve.asking import Asking, Courier
from nextword.serve.completions import Order, answer, order_chat, order_completion, stream
from nextword.serve.doors import Door, answer_json, application
from nextword.serve.engine import Engine
from nextword.serve.errors import ApiError
from nextword.serve.metrics import exposition
from nextword.serve.openapi import describe
from nextword.serve.options import ServeSettings
from nextword.serve.requests import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    EmbeddingRequest,
    TokenizeRequest,
    read_body,
    texts_of,
)
from nextword.serve.tokens import token_text

Body = TypeVar("Body", bound=Struct)
Result = TypeVar("Result")
_LOG = logging.getLogger("nextword.serve")


@dataclass
class Served:
    """What is served, and to whom."""

    engines: dict[str, Engine]
    """By the names of their models."""
    settings: ServeSettings
    began: int = field(default_factory=lambda: int(time.time()))

    def engine(self, name: str | None) -> tuple[str, Engine]:
        """Find a model; where none is named, the first.

        Raises:
            ApiError: there is no such model.
        """
        if name is None:
            return next(iter(self.engines.items()))
        if name not in self.engines:
            raise ApiError(
                f"no model {name!r}; there is {', '.join(self.engines)}",
                status=404, param="model", code="model_not_found",
            )  # fmt: skip
        return name, self.engines[name]


def build(served: Served) -> Starlette:
    """Build the application.

    Args:
        served: the models, at work already.
    """
    settings = served.settings
    layers: list[Middleware] = []
    if settings.allow_origins:
        layers.append(
            Middleware(
                CORSMiddleware, allow_origins=list(settings.allow_origins),
                allow_methods=["GET", "POST"], allow_headers=["Authorization", "Content-Type"],
            )
        )  # fmt: skip
    doors: dict[str, tuple[str, Door[Served]]] = {
        "/v1/completions": ("POST", _completions),
        "/v1/chat/completions": ("POST", _chat),
        "/v1/embeddings": ("POST", _embeddings),
        "/v1/models": ("GET", _models),
        "/v1/models/{name:path}": ("GET", _model),
        "/tokenize": ("POST", _tokenize),
        "/detokenize": ("POST", _detokenize),
        "/tokenizer_info": ("GET", _tokenizer_info),
        "/health": ("GET", _health),
        "/metrics": ("GET", _metrics),
        "/openapi.json": ("GET", _openapi),
    }

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.courier = Courier()
        yield
        for engine in served.engines.values():
            engine.close()

    return application(served, doors, settings, layers, lifespan)


async def _body(request: Request, kind: type[Body]) -> Body:
    return read_body(await request.body(), kind)


async def _completions(served: Served, request: Request) -> Response:
    body = await _body(request, CompletionRequest)
    name, engine = served.engine(body.model)
    order = await asyncio.to_thread(order_completion, body, engine, name, served.settings)
    return await _answered(order, request, streams=bool(body.stream))


async def _chat(served: Served, request: Request) -> Response:
    body = await _body(request, ChatRequest)
    name, engine = served.engine(body.model)
    order = await asyncio.to_thread(order_chat, body, engine, name, served.settings)
    return await _answered(order, request, streams=bool(body.stream))


async def _answered(order: Order, request: Request, *, streams: bool) -> Response:
    courier: Courier = request.app.state.courier
    if streams:
        asking = Asking(order.engine, courier, order.wishes)
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        words = stream(asking, order)
        return _Told(words, asking, media_type="text/event-stream", headers=headers)
    return answer_json(await _while_there(request, answer(order, courier)))


class _Told(StreamingResponse):
    """What is told while it is written; whoever goes before it has begun lets the texts go, too."""

    def __init__(self, words: AsyncIterator[bytes], asking: Asking, **more: Any) -> None:
        super().__init__(words, **more)
        self.asking = asking

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.asking.cancel()


async def _while_there(request: Request, work: Awaitable[Result]) -> Result:
    """Wait for something as long as the client does.

    Raises:
        ClientDisconnect: it has gone.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_has_left(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task


async def _has_left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


MOST_INPUTS = 2048
"""Texts in one request for vectors, as many as OpenAI's own takes."""


async def _embeddings(served: Served, request: Request) -> Response:
    """Give each text the mean of its last hidden states, of length 1."""
    body = await _body(request, EmbeddingRequest)
    name, engine = served.engine(body.model)
    if body.dimensions not in (None, engine.opened.model.shape.hidden_size):
        width = engine.opened.model.shape.hidden_size
        raise ApiError(f"dimensions: this model's are {width}", param="dimensions")
    if body.encoding_format not in (None, "float", "base64"):
        raise ApiError("encoding_format: float or base64", param="encoding_format")
    texts = texts_of(body.input, "input")
    if len(texts) > MOST_INPUTS:
        words = f"{len(texts)} texts in one request; this server reads {MOST_INPUTS} at most"
        raise ApiError(words, param="input")
    rows = await asyncio.to_thread(_rows_of, texts, engine)
    deadline = time.monotonic() + served.settings.timeout_seconds
    data = await _while_there(request, _vectors(rows, engine, deadline, body.encoding_format))
    read = sum(map(len, rows))
    usage = {"prompt_tokens": read, "total_tokens": read}
    return answer_json({"object": "list", "data": data, "model": name, "usage": usage})


def _rows_of(texts: Sequence[str | list[int]], engine: Engine) -> list[list[int]]:
    """Encode texts, each after the token that a text begins with."""
    rows = []
    for one in texts:
        ids = engine.vocabulary.encode(one) if isinstance(one, str) else one
        if max(ids, default=0) >= len(engine.vocabulary):
            raise ApiError(f"input: no entry {max(ids)}", param="input")
        rows.append([engine.vocabulary.begin_id, *ids])
        if len(rows[-1]) > engine.context:
            raise ApiError(
                f"a text has {len(rows[-1])} tokens; this model's context holds {engine.context}",
                param="input", code="context_length_exceeded",
            )  # fmt: skip
    return rows


async def _vectors(
    rows: Sequence[Sequence[int]], engine: Engine, deadline: float, form: str | None
) -> list[dict[str, Any]]:
    """Return each row's vector as it is told; between two rows others have their turn."""
    data = []
    for index, row in enumerate(rows):
        engine.look_at_the_clock(deadline)
        vector = await asyncio.wrap_future(engine.call(functools.partial(_embed, engine, row)))
        told: Any = vector.tolist()
        if form == "base64":
            told = base64.b64encode(vector.numpy().astype("<f4").tobytes()).decode()
        data.append({"object": "embedding", "index": index, "embedding": told})
    return data


@torch.inference_mode()
def _embed(engine: Engine, row: Sequence[int]) -> torch.Tensor:
    model = engine.opened.model
    states = model.hidden(torch.tensor([list(row)], device=model.device))[0].float()
    mean = states.mean(0)  # the begin token's among them, as sentence-transformers takes it
    length: torch.Tensor = mean.norm().clamp_min(1e-12)
    unit: torch.Tensor = (mean / length).cpu()
    return unit


def _described(served: Served, name: str) -> dict[str, Any]:
    engine = served.engines[name]
    return {
        "id": name,
        "object": "model",
        "created": served.began,
        "owned_by": "nextword",
        "root": name,
        "max_model_len": engine.context,
        "parameters": engine.opened.model.shape.parameters(),
        "has_chat_template": engine.opened.chat_template is not None,
    }


async def _models(served: Served, request: Request) -> Response:
    return answer_json(
        {"object": "list", "data": [_described(served, name) for name in served.engines]}
    )


async def _model(served: Served, request: Request) -> Response:
    name, _ = served.engine(request.path_params["name"])
    return answer_json(_described(served, name))


async def _tokenize(served: Served, request: Request) -> Response:
    body = await _body(request, TokenizeRequest)
    _, engine = served.engine(body.model)
    given = [text for text in (body.prompt, body.content) if isinstance(text, str)]
    if len(given) != 1:
        raise ApiError("one of prompt and content is needed: the text", param="prompt")
    ids = await asyncio.to_thread(engine.vocabulary.encode, given[0], special=body.parse_special)
    if body.add_special_tokens:
        ids = [engine.vocabulary.begin_id, *ids]
    told = {"tokens": ids, "count": len(ids), "max_model_len": engine.context}
    if body.return_token_strs:
        told["token_strs"] = [token_text(engine.vocabulary, id_) for id_ in ids]
    return answer_json(told)


async def _detokenize(served: Served, request: Request) -> Response:
    body = await _body(request, DetokenizeRequest)
    _, engine = served.engine(body.model)
    entries = len(engine.vocabulary)
    if max(body.tokens, default=0) >= entries:
        raise ApiError(
            f"tokens: no entry {max(body.tokens)}; this vocabulary holds ids 0 to {entries - 1}",
            param="tokens",
        )
    text = engine.vocabulary.decode(body.tokens)
    return answer_json({"prompt": text, "content": text})


async def _tokenizer_info(served: Served, request: Request) -> Response:
    name, engine = served.engine(request.query_params.get("model"))
    vocabulary = engine.vocabulary
    special = {"begin": vocabulary.begin_id, "end": vocabulary.end_id, "pad": vocabulary.pad_id}
    return answer_json(
        {
            "model": name,
            "kind": vocabulary.kind,
            "vocab_size": len(vocabulary),
            "is_lossless": vocabulary.is_lossless,
            "max_model_len": engine.context,
            "special_tokens": {
                role: {"id": id_, "text": vocabulary.piece(id_)}
                for role, id_ in special.items()
                if id_ is not None
            },
            "chat_template": engine.opened.chat_template,
        }
    )


async def _health(served: Served, request: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _metrics(served: Served, request: Request) -> Response:
    lines = (
        line
        for name, engine in served.engines.items()
        for line in engine.metrics.lines(name, engine.load)
    )
    return PlainTextResponse(exposition(lines), media_type="text/plain; version=0.0.4")


async def _openapi(served: Served, request: Request) -> Response:
    return answer_json(describe())
