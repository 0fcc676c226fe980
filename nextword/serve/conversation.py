"""A conversation with a model, turn by turn: what was said, what can be taken back, and why so."""

import json
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

from nextword.base.errors import EvaluationError
from nextword.base.files import check_output, write_text
from nextword.explanation.trace import Trace, trace
from nextword.prediction.generate import generate
from nextword.prediction.loading import Opened
from nextword.prediction.options import GenerationSettings
from nextword.serve.chat import ids_of_messages
from nextword.serve.errors import ApiError

Message = dict[str, str]


class Conversation:
    """Messages to and fro; each answer is written by the model as it was taught."""

    def __init__(self, opened: Opened, settings: GenerationSettings, system: str = "") -> None:
        """Begin with nothing said.

        Args:
            opened: a model that was taught conversations.
            settings: how to choose, and the most tokens of an answer.
            system: what the model is told first; "" for nothing.

        Raises:
            EvaluationError: it was taught none.
        """
        self.opened, self.settings = opened, settings
        self.messages: list[Message] = []
        self.tell(system)
        if opened.chat_template is None:
            raise EvaluationError(
                f"{opened.name}: this model has no chat template; `nextword finetune` teaches it "
                "conversations, `nextword generate` goes on with a text"
            )
        self.gone = 0
        """Messages from its beginning that the last answer could not read any more."""
        self._read: list[int] = []
        self._written: list[int] = []

    def tell(self, system: str) -> None:
        """Say what the model is told before all else; "" takes it back."""
        said = [message for message in self.messages if message["role"] != "system"]
        self.messages = [{"role": "system", "content": system}, *said] if system else said

    def _ids(self, messages: list[Message]) -> list[int]:
        try:
            return ids_of_messages(self.opened, messages)
        except ApiError as error:
            raise EvaluationError(str(error)) from None

    def _fitting(self) -> tuple[list[int], int]:
        """Return the ids that are read, and how many messages from the beginning no longer fit.

        Half of the context at least is left for what was said; the last message is always read.
        """
        context = self.opened.model.shape.context
        room = context - min(self.settings.max_tokens, context // 2)
        first = 1 if self.messages and self.messages[0]["role"] == "system" else 0
        gone = 0
        while True:
            ids = self._ids([*self.messages[:first], *self.messages[first + gone :]])
            if len(ids) <= room or first + gone + 1 >= len(self.messages):
                # Of a message that is longer than all that is read, the end.
                return ids if len(ids) <= room else [*ids[:1], *ids[1 - room :]], gone
            gone += 1
            while (
                first + gone + 1 < len(self.messages)
                and self.messages[first + gone]["role"] != "user"
            ):
                gone += 1  # an answer alone would have nothing that it answers

    def say(self, text: str) -> Generator[str, None, None]:
        """Say something; yield the answer as it is written.

        What was answered by the time the iterator is left counts as the answer.
        """
        self.messages.append({"role": "user", "content": text})
        yield from self._answer()

    def again(self) -> Generator[str, None, None]:
        """Take the last answer back, and yield another.

        Raises:
            EvaluationError: nothing was said yet.
        """
        if not self._exchanged():
            raise EvaluationError("nothing was answered yet")
        self.messages.pop()
        if self.settings.seed is not None:  # another, but the same each time
            self.settings = replace(self.settings, seed=self.settings.seed + 1)
        yield from self._answer()

    def _answer(self) -> Generator[str, None, None]:
        try:
            self._read, self.gone = self._fitting()
        except EvaluationError:
            self.messages.pop()
            raise
        self._written = []
        parts: list[str] = []
        leading = True
        try:
            left = self.opened.model.shape.context - len(self._read)
            settings = replace(self.settings, max_tokens=min(self.settings.max_tokens, left))
            model, vocabulary = self.opened.model, self.opened.vocabulary
            chosen = generate(model, vocabulary, self._read, settings, begins=False)
            for one in chosen:
                self._written.append(one.id)
                piece = one.text.lstrip() if leading else one.text
                leading = leading and not piece
                if piece:
                    parts.append(piece)
                    yield piece
        finally:
            self.messages.append({"role": "assistant", "content": "".join(parts)})

    def _exchanged(self) -> bool:
        return bool(self.messages) and self.messages[-1]["role"] == "assistant"

    def undo(self) -> str:
        """Forget the last message and its answer; return the message.

        Raises:
            EvaluationError: nothing was said.
        """
        if not self._exchanged():
            raise EvaluationError("nothing was said yet")
        self.messages.pop()
        self._written = []
        return self.messages.pop()["content"]

    def explain(self) -> Trace:
        """Judge the last answer, piece by piece, by what stood before each.

        Raises:
            EvaluationError: nothing was answered.
        """
        if not (self._exchanged() and self._written):
            raise EvaluationError("nothing was answered yet")
        first, *ids = [*self._read, *self._written]
        model, vocabulary = self.opened.model, self.opened.vocabulary
        found = trace(model, vocabulary, "", ids=ids, begin=first, top=3, name=self.opened.name)
        text = vocabulary.decode(self._written)
        return replace(found, text=text, positions=found.positions[-len(self._written) :])

    def save(self, file: Path, *, force: bool = False) -> None:
        """Write it down as a line of examples, from which `nextword finetune` teaches.

        Raises:
            RunError: there is a file of that name, or it cannot be written.
        """
        check_output(file, force=force)
        write_text(file, json.dumps({"messages": self.messages}, ensure_ascii=False) + "\n")
