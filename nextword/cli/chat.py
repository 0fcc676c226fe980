"""Command line: a conversation in the terminal."""

import contextlib
import sys
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from nextword.base.errors import EvaluationError, NextwordError
from nextword.base.signals import Terminated
from nextword.cli.program import PREDICT, Run, app, say, takes, write

if TYPE_CHECKING:
    from nextword.serve.conversation import Conversation

HELP = """\
/explain       how likely each piece of the last answer was, and what else
/undo          forget the last message and its answer
/again         another answer to the last message
/system TEXT   what the model is told before all else; alone: nothing
/save FILE     write the conversation down, as examples from which `nextword finetune` teaches
/quit          leave; so does Ctrl-D. Ctrl-C ends an answer."""


@app.command(group=PREDICT)
@takes(("generation",), prefix=False)
def chat(
    run: Run = "latest",
    *,
    system: Annotated[str, Parameter(help="what the model is told before all else")] = "",
    **options: Any,
) -> None:
    """Talk with a model that was taught conversations.

    Each line is a message, from a pipe too; /help says more.
    """
    from nextword import language_model
    from nextword.serve.conversation import Conversation
    from nextword.settings import resolve

    settings = resolve(given=options).generation
    opened = language_model.load(run).opened
    opened.refuse("generate")
    talk = Conversation(opened, settings, system)
    is_terminal = sys.stdin.isatty()
    if is_terminal:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 - lines can be edited, and those before come back
        say(f"{opened.name}: each line is a message; /help says more, Ctrl-D leaves")
    while (line := _next_line(is_terminal)) is not None:
        if not line.strip():
            continue
        try:
            _check(line)
            if line.startswith("/"):
                if _order(talk, line):
                    return
            else:
                _write_answer(talk, talk.say(line))
        except NextwordError as error:
            if not is_terminal:
                raise
            say(str(error))


NOT_TEXT = "\udcff"
"""Stands for a line whose bytes spell no text, as Python itself has it in some locales."""


def _check(line: str) -> None:
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:
        raise EvaluationError("a message that is not UTF-8; give it in that encoding") from None


def _next_line(is_terminal: bool) -> str | None:
    """Read a message; None where there are no more."""
    try:
        return input("> " if is_terminal else "")
    except UnicodeDecodeError:
        return NOT_TEXT
    except EOFError:
        if is_terminal:
            write("")
        return None


def _write_answer(talk: "Conversation", answer: "Generator[str, None, None]") -> None:
    """Write an answer as it comes; Ctrl-C ends it, and what was written stays."""
    with contextlib.closing(answer):
        try:
            for piece in answer:
                write(piece, end="")
        except KeyboardInterrupt as stopped:
            write(" …", end="")
            if isinstance(stopped, Terminated):
                raise
    write("")
    if talk.gone:
        say(f"(the first {talk.gone:,} messages no longer fit and were not read)")


def _order(talk: "Conversation", line: str) -> bool:
    """Do what a line that begins with a slash says; return whether it ends the conversation."""
    word, _, rest = line.strip().partition(" ")
    if word in ("/quit", "/exit"):
        return True
    if word == "/help":
        write(HELP)
    elif word == "/undo":
        say(f"forgotten: {talk.undo()}")
    elif word == "/again":
        _write_answer(talk, talk.again())
    elif word == "/system":
        talk.tell(rest.strip())
        say("it is told so from the next message on" if rest.strip() else "it is told nothing")
    elif word == "/explain":
        from nextword.rendering.trace import describe_trace

        write(describe_trace(talk.explain(), top=3))
    elif word == "/save":
        if not rest.strip():
            raise EvaluationError("/save FILE names the file to write")
        talk.save(Path(rest.strip()))
        say(f"{rest.strip()}: nextword finetune RUN {rest.strip()} teaches from it")
    else:
        raise EvaluationError(f"{word}: no such order; /help lists them")
    return False
