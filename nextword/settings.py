"""Configuration: all rooms' options composed, from defaults, a recipe, the command line, Python.

Each option is declared once, beside the code it governs, with its default, meaning and unit. This
page adds none.
"""

import dataclasses
import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

from nextword.base.errors import SettingsError
from nextword.base.options import check_options, nearest
from nextword.corpus.options import CorpusSettings
from nextword.explanation.options import ExplanationSettings
from nextword.machine.options import MachineSettings
from nextword.model.shape import ModelSettings
from nextword.objectives.options import (
    ExamplesSettings,
    FinetuneSettings,
    LabelsSettings,
    ObjectiveSettings,
)
from nextword.prediction.options import EvaluationSettings, GenerationSettings
from nextword.training.options import TrainingSettings
from nextword.vocabulary.options import VocabularySettings


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything a run is told; a room each."""

    corpus: CorpusSettings = field(default_factory=CorpusSettings)
    vocabulary: VocabularySettings = field(default_factory=VocabularySettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    objective: ObjectiveSettings = field(default_factory=ObjectiveSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    finetune: FinetuneSettings = field(default_factory=FinetuneSettings)
    examples: ExamplesSettings = field(default_factory=ExamplesSettings)
    labels: LabelsSettings = field(default_factory=LabelsSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    generation: GenerationSettings = field(default_factory=GenerationSettings)
    explanation: ExplanationSettings = field(default_factory=ExplanationSettings)
    machine: MachineSettings = field(default_factory=MachineSettings)

    def __post_init__(self) -> None:
        """Refuse values outside their limits."""
        for room in dataclasses.fields(self):
            check_options(getattr(self, room.name), room.name)


class Option(NamedTuple):
    """One option as help, docs and forms show it."""

    room: str
    name: str
    type: type
    default: Any
    help: str
    unit: str
    choices: tuple[str, ...]
    rule: str
    """How the value follows where nothing is said and the default is None."""
    of: tuple[str, ...]
    """What it follows from."""

    @property
    def default_words(self) -> str:
        """What holds where nothing is said: the rule, or the value with its unit."""
        if self.rule or self.default in (None, ()):
            return self.rule
        if isinstance(self.default, bool):
            return str(self.default).lower()
        words = ", ".join(self.default) if isinstance(self.default, tuple) else str(self.default)
        return f"{words} {self.unit}".strip()

    @property
    def path(self) -> str:
        """Its name as recipes and the command line write it: room.name."""
        return f"{self.room}.{self.name}"


def all_options(*rooms: str) -> Iterator[Option]:
    """Yield every option of the rooms named, or of all."""
    for room in dataclasses.fields(Settings):
        if rooms and room.name not in rooms:
            continue
        yield from options_of(room.name, get_type_hints(Settings)[room.name])


def options_of(room: str, kind: type) -> Iterator[Option]:
    """Yield every option of one room, from the class that declares them."""
    hints = get_type_hints(kind)
    for entry in dataclasses.fields(kind):
        meta = entry.metadata
        type_ = _bare(hints[entry.name])
        yield Option(
            room,
            entry.name,
            type_,
            entry.default,
            meta["help"],
            meta["unit"],
            meta["choices"],
            meta["rule"],
            meta["of"],
        )


LARGEST_RECIPE, MOST_DOTS = 1 << 18, 1000


def resolve(
    recipe: Mapping[str, Any] | None = None, given: Mapping[str, Any] | None = None
) -> Settings:
    """Combine defaults, a recipe and what was given, the later overruling the earlier.

    Args:
        recipe: {room: {name: value}}, as a TOML file reads.
        given: {"room.name": value}.

    Raises:
        SettingsError: an unknown room or option (the nearest is suggested), or a value of the wrong
            kind.
    """
    flat: dict[str, Any] = {}
    for room, values in (recipe or {}).items():
        if not isinstance(values, Mapping):
            raise SettingsError(
                f"recipe: {room!r} stands alone; write options under a room, as in [training]"
            )
        flat.update({f"{room}.{name}": value for name, value in values.items()})
    flat.update(given or {})
    known = {option.path: option for option in all_options()}
    rooms: dict[str, dict[str, Any]] = {}
    for path, value in flat.items():
        if path not in known:
            raise SettingsError(f"unknown option {path!r}.{nearest(path, known)}")
        option = known[path]
        rooms.setdefault(option.room, {})[option.name] = _convert(option, value)
    kinds = get_type_hints(Settings)
    return Settings(**{room: kinds[room](**values) for room, values in rooms.items()})


def read_recipe(file: Path) -> dict[str, Any]:
    """Read a TOML recipe.

    Raises:
        SettingsError: it is missing or is not TOML, or larger than any recipe.
    """
    try:
        if file.exists() and not file.is_file():
            raise SettingsError(f"{file}: no plain file")
        with open(file, encoding="utf-8") as stream:
            text = stream.read(LARGEST_RECIPE + 1)
        if len(text) > LARGEST_RECIPE:
            raise SettingsError(f"{file}: more than {LARGEST_RECIPE:,} characters: no recipe")
        # Each dot of a key is a table in a table: a line of them would fill the memory.
        if any(line.count(".") > MOST_DOTS for line in text.splitlines()):
            raise SettingsError(f"{file}: not a recipe (a line of more than {MOST_DOTS} dots)")
        return tomllib.loads(text)
    except OSError as error:
        raise SettingsError(f"{file}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{file}: not a recipe in TOML ({str(error)[:120]})") from None


def as_toml(settings: Settings) -> str:
    """Write settings as a recipe; an option without a value stands as a comment."""
    lines = []
    for room in dataclasses.fields(settings):
        lines.append(f"[{room.name}]")
        for name, value in dataclasses.asdict(getattr(settings, room.name)).items():
            lines.append(
                f"# {name} is derived" if value is None else f"{name} = {_toml_value(value)}"
            )
        lines.append("")
    return "\n".join(lines)


def _toml_value(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml_value(entry) for entry in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's strings are TOML's, but for the one control character that JSON lets stand.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)


def _bare(hint: Any) -> type:
    """Return the type behind `X | None`, and tuple for `tuple[str, ...]`."""
    if get_origin(hint) is tuple:
        return tuple
    if isinstance(hint, UnionType):
        hint = next(kind for kind in get_args(hint) if kind is not type(None))
    kind: type = hint
    return kind


def _convert(option: Option, value: Any) -> Any:
    if value is None:
        return value
    if option.type is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if option.type is tuple and isinstance(value, list | tuple):
        if not all(isinstance(entry, str) for entry in value):
            raise SettingsError(f"{option.path} = {value!r}: expected {_WORDS[tuple]}")
        return tuple(value)
    if not isinstance(value, option.type) or (option.type is int and isinstance(value, bool)):
        raise SettingsError(f"{option.path} = {value!r}: expected {_WORDS[option.type]}")
    return value


_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "a word",
    bool: "true or false",
    tuple: "a list of texts",
}
