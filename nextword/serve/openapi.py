"""The endpoint described as an OpenAPI document, from the same classes that read what is asked."""

from typing import Any

import msgspec

from nextword.serve.requests import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    EmbeddingRequest,
    TokenizeRequest,
)

BODIES = {
    "/v1/completions": (CompletionRequest, "Continue texts"),
    "/v1/chat/completions": (ChatRequest, "Answer a conversation"),
    "/v1/embeddings": (EmbeddingRequest, "Give texts vectors: the mean of their last states"),
    "/tokenize": (TokenizeRequest, "Turn a text into ids"),
    "/detokenize": (DetokenizeRequest, "Turn ids into a text"),
}
QUESTIONS = {
    "/v1/models": "List the models that are served",
    "/tokenizer_info": "Tell of a model's vocabulary",
    "/health": "Say whether the server is there",
    "/metrics": "Count what was done, for Prometheus",
    "/openapi.json": "Give this document",
}
_REFUSED = {
    "400": "something that was asked is wrong; param names it",
    "401": "the key is missing or another",
    "403": "pages of this origin may not ask",
    "404": "there is no such model",
    "405": "another method is meant",
    "408": "it took too long",
    "413": "the request is too large",
    "421": "this server is not called so",
    "429": "too many texts wait",
    "503": "the server has ended",
}


def describe() -> dict[str, Any]:
    """Return the document."""
    from nextword import __version__

    kinds = [kind for kind, _ in BODIES.values()]
    schemas, parts = msgspec.json.schema_components(
        kinds, ref_template="#/components/schemas/{name}"
    )
    error = {"$ref": "#/components/schemas/Error"}
    told = {
        status: {"description": words, "content": {"application/json": {"schema": error}}}
        for status, words in _REFUSED.items()
    }
    found = {"200": {"description": "what was asked for"}, **told}
    paths: dict[str, Any] = {
        path: {
            "post": {
                "summary": words,
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": schema}},
                },
                "responses": found,
            }
        }
        for (path, (_, words)), schema in zip(BODIES.items(), schemas, strict=True)
    }
    for path, words in QUESTIONS.items():
        paths[path] = {"get": {"summary": words, "responses": found}}
    paths["/tokenizer_info"]["get"]["parameters"] = [_model("query", required=False)]
    paths["/v1/models/{name}"] = {
        "get": {
            "summary": "Tell of one model",
            "parameters": [_model("path", required=True)],
            "responses": found,
        }
    }
    about = {"title": "nextword serve", "version": __version__}
    return {
        "openapi": "3.1.0",
        "info": about,
        "paths": paths,
        "components": {"schemas": {**parts, "Error": _ERROR}},
    }


def _model(where: str, *, required: bool) -> dict[str, Any]:
    name = "name" if where == "path" else "model"
    return {"name": name, "in": where, "required": required, "schema": {"type": "string"}}


_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
