"""Simple English stories drawn from stated probabilities: the floor of the loss is known exactly.

`stories.toml` holds the grammar: sentences with slots, and each choice with its probability.
`Grammar.draw` walks it from the rule `story`, remembers what must be repeated (the hero's name, the
thing that was found), and adds up the log of every choice's probability. `Grammar.parse` walks the
same grammar along a given text and recovers the choices from the text alone. Because a text has
exactly one derivation, that sum is the text's exact log-probability, and minus its average over
tokens is the lowest loss that any model can reach: the floor.
"""

import math
import random
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

Memory = Mapping[str, str]

_GOLDEN_RATIO = (math.sqrt(5) - 1) / 2
_PART = re.compile(
    r"<(?P<rule>\w+)(?: as (?P<name>\w+))?>"
    r"|\[(?P<assign>\w+)=(?P<value>[^\]]*)\]"
    r"|\[(?P<recall>\w+)\]"
)
_WORD = re.compile(r"[\w-]*")


class Write(NamedTuple):
    """Write this text."""

    text: str


class Draw(NamedTuple):
    """Draw from a rule; remember the text under `name`."""

    rule: str
    name: str | None


class Assign(NamedTuple):
    """Remember a text without writing it."""

    name: str
    value: str


class Recall(NamedTuple):
    """Repeat what is remembered."""

    name: str


class Bind(NamedTuple):
    """While parsing: what was read since `start` is remembered under `name`."""

    name: str
    start: int


Part = Write | Draw | Assign | Recall | Bind


class Option(NamedTuple):
    """One way to go on: its natural-log probability and its parts."""

    log_probability: float
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Choice:
    """All the ways one rule can go on."""

    options: tuple[Option, ...]
    cumulative: tuple[float, ...]
    by_first_word: Mapping[str, tuple[Option, ...]] | None = None
    """For a list of words: its entries by their first word, so that a parser need not try each."""

    @classmethod
    def of(cls, weighted: Sequence[tuple[float, str]], words: bool = False) -> "Choice":
        """Compile (probability, sentence) pairs; probabilities are scaled to sum to 1."""
        total = math.fsum(weight for weight, _ in weighted)
        options, cumulative, running, index = [], [], 0.0, {}  # type: ignore[var-annotated]
        for weight, sentence in weighted:
            parts = (Write(sentence),) if words else tuple(_parts(sentence))
            options.append(Option(math.log(weight / total), parts))
            running += weight / total
            cumulative.append(running)
            if words:
                index.setdefault(_first_word(sentence, 0), []).append(options[-1])
        return cls(
            tuple(options),
            tuple(cumulative),
            {k: tuple(v) for k, v in index.items()} if words else None,
        )

    def pick(self, uniform: float) -> tuple[Option, float]:
        """Return the option under a number in [0, 1), and where in its share that number fell."""
        low = 0.0
        for option, high in zip(self.options, self.cumulative, strict=True):
            if uniform < high or option is self.options[-1]:
                return option, min(
                    max((uniform - low) / (high - low), 0.0), math.nextafter(1.0, 0.0)
                )
            low = high
        raise AssertionError("unreachable: a choice has at least one option")

    def matching(self, text: str, position: int) -> Sequence[Option]:
        """Return the options that may begin at this position of the text."""
        if self.by_first_word is not None:
            return self.by_first_word.get(_first_word(text, position), ())
        return self.options


class Story(NamedTuple):
    """A text and the natural log of its exact probability under the grammar."""

    text: str
    log_probability: float


@dataclass(frozen=True)
class Grammar:
    """Rules, each a choice; a story is drawn from the rule `story`."""

    rules: Mapping[str, Choice]
    even: frozenset[str] = frozenset()
    """Rules drawn along an evenly spread sequence instead of independently (see `draw`)."""

    def draw(self, seed: int, index: int, start: str = "story") -> Story:
        """Draw story number `index`: a pure function of (seed, index).

        The choices of the opening saying follow a golden-ratio sequence over the index. Each single
        story has exactly the stated probabilities, and a corpus of any length carries them to
        within a few counts, where independent draws would leave the odds of a rare sentence
        uncertain by their square root.
        """
        source = random.Random(f"{seed}/{index}")
        spread = (random.Random(seed).random() + index * _GOLDEN_RATIO) % 1.0
        stack: list[Part] = [Draw(start, None)]
        written: list[str] = []
        memory: dict[str, str] = {}
        log_probability = 0.0
        while stack:
            part = stack.pop()
            if isinstance(part, Write):
                written.append(part.text)
            elif isinstance(part, Recall):
                written.append(memory[part.name])
            elif isinstance(part, Assign):
                memory[part.name] = part.value
            elif isinstance(part, Bind):
                memory[part.name] = "".join(written[part.start :])
            else:
                choice = self.rules[part.rule]
                if part.rule in self.even:
                    option, spread = choice.pick(spread)
                elif choice.by_first_word is not None:
                    option = choice.options[int(source.random() * len(choice.options))]
                else:
                    option, _ = choice.pick(source.random())
                log_probability += option.log_probability
                if part.name is not None:
                    stack.append(Bind(part.name, len(written)))
                stack.extend(reversed(option.parts))
        return Story("".join(written), log_probability)

    def parse(self, text: str, start: str = "story") -> Story | None:
        """Recover the derivation of a text from the text alone.

        Returns:
            the text with its exact log-probability, or None where the grammar cannot write it.
        """
        return next(self.derivations(text, start), None)

    def derivations(self, text: str, start: str = "story") -> Iterator[Story]:
        """Yield every derivation of the text: for a text of this grammar exactly one."""
        stack: list[tuple[_Agenda, int, Memory, float]] = [((Draw(start, None), None), 0, {}, 0.0)]
        while stack:
            agenda, position, memory, log_probability = stack.pop()
            while agenda is not None:
                part, agenda = agenda
                if isinstance(part, Draw):
                    rest = agenda if part.name is None else (Bind(part.name, position), agenda)
                    for option in self.rules[part.rule].matching(text, position):
                        first = option.parts[0] if option.parts else None
                        if isinstance(first, Write) and not text.startswith(first.text, position):
                            continue
                        stack.append(
                            (
                                _push(option.parts, rest),
                                position,
                                memory,
                                log_probability + option.log_probability,
                            )
                        )
                    break
                if isinstance(part, Assign):
                    memory = {**memory, part.name: part.value}
                elif isinstance(part, Bind):
                    memory = {**memory, part.name: text[part.start : position]}
                else:
                    expected = part.text if isinstance(part, Write) else memory[part.name]
                    if not text.startswith(expected, position):
                        break
                    position += len(expected)
            else:
                if position == len(text):
                    yield Story(text, log_probability)

    def everything(self, start: str = "story") -> Iterator[Story]:
        """Yield every text that a (reduced) grammar can write, with its probability."""
        stack: list[tuple[_Agenda, tuple[str, ...], Memory, float]] = [
            ((Draw(start, None), None), (), {}, 0.0)
        ]
        while stack:
            agenda, written, memory, log_probability = stack.pop()
            while agenda is not None:
                part, agenda = agenda
                if isinstance(part, Draw):
                    rest = agenda if part.name is None else (Bind(part.name, len(written)), agenda)
                    for option in self.rules[part.rule].options:
                        stack.append(
                            (
                                _push(option.parts, rest),
                                written,
                                memory,
                                log_probability + option.log_probability,
                            )
                        )
                    break
                if isinstance(part, Assign):
                    memory = {**memory, part.name: part.value}
                elif isinstance(part, Bind):
                    memory = {**memory, part.name: "".join(written[part.start :])}
                else:
                    written = (
                        *written,
                        part.text if isinstance(part, Write) else memory[part.name],
                    )
            else:
                yield Story("".join(written), log_probability)


_Agenda = tuple[Part, Any] | None
"""Parts still to come: a linked list, shared between the branches of a search."""


def load_grammar(max_words: int | None = None, max_options: int | None = None) -> Grammar:
    """Read the stories' grammar.

    Args:
        max_words: keep only this many entries of each word list.
        max_options: keep only this many options of each rule; probabilities are scaled to sum to 1
            again.
    """
    source = tomllib.loads(
        resources.files(__package__).joinpath("stories.toml").read_text(encoding="utf-8")
    )
    rules = {name: Choice.of(options[:max_options]) for name, options in source["rules"].items()}
    for name, words in source["words"].items():
        entries = [(1.0, word.replace("_", " ")) for word in words.split()]
        rules[name] = Choice.of(entries[:max_words], words=True)
    return Grammar(rules, frozenset(source["even"]))


@cache
def default_grammar() -> Grammar:
    """Return the whole grammar, read once."""
    return load_grammar()


def _parts(sentence: str) -> Iterator[Part]:
    end = 0
    for found in _PART.finditer(sentence):
        if found.start() > end:
            yield Write(sentence[end : found.start()])
        end = found.end()
        if found["rule"]:
            yield Draw(found["rule"], found["name"])
        elif found["assign"]:
            yield Assign(found["assign"], found["value"])
        else:
            yield Recall(found["recall"])
    if end < len(sentence):
        yield Write(sentence[end:])


def _push(parts: Sequence[Part], agenda: _Agenda) -> _Agenda:
    for part in reversed(parts):
        agenda = (part, agenda)
    return agenda


def _first_word(text: str, position: int) -> str:
    found = _WORD.match(text, position)
    return found.group() if found else ""
