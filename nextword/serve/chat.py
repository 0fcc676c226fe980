"""From a conversation to ids, by the template that the model's own folder holds.

A template is a small program from elsewhere: it runs in Jinja's sandbox. What users say is put in
afterwards, encoded by itself as ordinary text, so that nothing they write can become a special
token, whatever it spells.
"""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from nextword.base.errors import EvaluationError
from nextword.finetune.chat import TEMPLATES, ask
from nextword.prediction.loading import LARGEST_TEMPLATE, Opened
from nextword.serve.errors import ApiError


def ids_of_messages(opened: Opened, messages: Sequence[Mapping[str, str]]) -> list[int]:
    """Encode a conversation up to where the assistant is to answer.

    Args:
        opened: the model.
        messages: each with its role and content.

    Raises:
        ApiError: the model has learned no conversations, or its template refuses this one.
    """
    vocabulary, template = opened.vocabulary, opened.chat_template
    if template is None:
        raise ApiError(
            f"{opened.name}: this model has no chat template; ask /v1/completions to continue a "
            "text, or teach it conversations with `nextword finetune`",
            param="messages",
            code="no_chat_template",
        )
    try:
        if template in TEMPLATES:
            return [vocabulary.begin_id, *ask(messages, vocabulary, template)]
    except EvaluationError as error:
        raise ApiError(f"messages: {error}", param="messages") from None
    return _rendered(opened, template, messages)


def begins_with_space(opened: Opened) -> bool:
    """Whether an answer's first space is the template's, and not part of what is said."""
    return opened.chat_template in TEMPLATES


def _rendered(opened: Opened, template: str, messages: Sequence[Mapping[str, str]]) -> list[int]:
    """Let a template from elsewhere write the conversation down, with marks for what is said."""
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(why: str) -> None:
        raise TemplateError(why)

    vocabulary = opened.vocabulary
    marks = [secrets.token_hex(16) for _ in messages]
    room = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    room.globals["raise_exception"] = refuse
    said: list[dict[str, Any]] = [
        {**message, "content": mark} for message, mark in zip(messages, marks, strict=True)
    ]
    end, begin = (vocabulary.piece(id_) for id_ in (vocabulary.end_id, vocabulary.begin_id))
    try:
        text = room.from_string(template).render(
            messages=said, add_generation_prompt=True, eos_token=end, bos_token=begin
        )
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
        raise ApiError(f"messages: the chat template says: {error}", param="messages") from None
    if len(text) > LARGEST_TEMPLATE:
        raise ApiError("messages: the chat template makes too much of them", param="messages")
    ids: list[int] = []
    for mark, message in zip(marks, messages, strict=True):
        before, found, rest = text.partition(mark)
        if found:  # a template may leave a message out
            ids += vocabulary.encode(before, special=True) + vocabulary.encode(message["content"])
            text = rest
    return ids + vocabulary.encode(text, special=True)
