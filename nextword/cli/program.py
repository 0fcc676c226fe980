"""The command-line program: parsing of options, output, exit statuses."""

import errno
import inspect
import io
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, NoReturn

from cyclopts import App, CycloptsError, Group, Parameter, UnknownCommandError

from nextword.base.errors import (
    LEFT_ALONE,
    CorpusError,
    NextwordError,
    is_left_alone,
    is_out_of_memory,
)
from nextword.base.signals import Terminated, ending_on_sigterm
from nextword.base.terminal import for_stream
from nextword.settings import Option, all_options, options_of

BEGIN = """\
Begin:
  # learn the built-in stories, or a text of your own in ten minutes
  nextword train
  nextword train book.txt --minutes 10
  # write with it, and see what it thinks
  nextword generate latest "Long ago"
  nextword explain latest "We are all humans born to make mistakes"
  # walk through the ideas
  nextword tour

COMMAND --help says more of each, with examples. With --debug beside any command
an error shows where it came from."""


def _worth_saying(default: object) -> str | None:
    """Say a default in the help, unless nothing is said by it: no flag, no text."""
    return None if default is None or default is False or default == "" else str(default)


app = App(
    name="nextword",
    help="Train a language model to predict the next word from text, and watch it learn.",
    help_epilogue=BEGIN,
    version_flags=(),  # a verb of its own, which can say more
    help_format="plaintext",
    # A callable may give None, and nothing is said then.
    default_parameter=Parameter(show_default=_worth_saying),
    suppress_keyboard_interrupt=False,  # `main` says what it ends with
)
TRAIN, PREDICT, EXPLAIN, INSPECT, COMPRESS, SERVE, EXPORT, OPTIONS = (
    Group(name, sort_key=number)
    for number, name in enumerate(
        ("Train", "Predict", "Explain", "Inspect", "Compress", "Serve", "Export", "Options")
    )
)
"""Groups in the help; each of verbs has the file of its name."""
app["--help"].group = (OPTIONS,)
Run = Annotated[
    str, Parameter(help="a run's name or path, RUN@500, RUN@last, latest, or a model folder")
]
Paths = Annotated[str, Parameter(help='files, folders, globs, or "-" for standard input')]
AsJson = Annotated[
    bool, Parameter(name="--json", negative=(), help="print one JSON object instead of text")
]


SPIN_COUNT = "1000"
"""How often a waiting thread looks before it sleeps. (benchmarks/shared.py)"""
SERVING_SPIN_COUNT = "10000"
"""The same where the others are a server's own clients. (EXPERIMENTS.md, 2026-11-30)"""
ABOUT = "nextword --version --verbose"
"""Prints what a report of a mistake needs."""
DEBUG = "--debug"
GIVEN: list[str] = []
"""The words of the command that runs, for a verb that is done by several processes."""
_STANDARD_INPUT = "<standard input>"
"""Stands for "-" while options are read, which takes a lone dash for an option without a name."""


def main(arguments: list[str] | None = None) -> None:
    """Run one command.

    Leave with 0; 1 (a mistake of the program's own, with what a report of it needs, or a check that
    failed); 2 (wrong input or a machine that is full, said in one line); 130 or 143 (interrupted).
    """
    # Read by libgomp when torch is imported: threads that wait for others let other programs run.
    given = sys.argv[1:] if arguments is None else arguments
    GIVEN[:] = given
    spins = SERVING_SPIN_COUNT if given[:1] == ["serve"] else SPIN_COUNT
    os.environ.setdefault("GOMP_SPINCOUNT", spins)
    shows_all = DEBUG in given
    given = [word for word in given if word != DEBUG]
    for word in given:
        if not (_is_text(word) or os.path.exists(word)):
            leave(f"{word!a}: not UTF-8; give texts and options in that encoding", 2)
    try:
        with ending_on_sigterm():
            app([_dashes(word) for word in given], exit_on_error=False, print_error=False)
        sys.stdout.flush()  # here, where a full disk or a closed pipe is still said in one line
    except BrokenPipeError:
        sys.exit(141)
    except Terminated:
        leave("terminated", 143)
    except KeyboardInterrupt:
        leave("interrupted", 130)
    except Exception as error:
        if shows_all:
            sys.stderr.write(for_stream(traceback.format_exc(), sys.stderr))
        if isinstance(error, NextwordError | CycloptsError):
            leave(_words_of(error), 2)
        if words := _of_the_machine(error):
            leave(words, LEFT_ALONE if is_left_alone(error) else 2)
        leave(_of_its_own(error), 1)


def _words_of(error: Exception) -> str:
    """Return what is wrong in one line; of a verb that is none, which may be meant."""
    words = " ".join(str(error).split())
    if isinstance(error, UnknownCommandError):
        words = words.partition(" Available commands:")[0].rstrip(".")
        words += f"{'' if words.endswith('?') else ';'} `nextword --help` lists all"
    return words


def _of_its_own(error: Exception) -> str:
    """Say that a mistake is the program's own, and where all that a report needs is kept."""
    kept = "--debug beside the command prints all of it"
    try:
        number, name = tempfile.mkstemp(prefix="nextword-", suffix=".txt")
        with open(number, "w", encoding="utf-8", errors="replace") as stream:
            stream.write("".join(traceback.format_exception(error)))
        kept = f"{name} holds all of it"
    except OSError:  # no room, perhaps the very reason
        pass
    last = traceback.extract_tb(error.__traceback__)[-1:]
    place = f" in {Path(last[0].filename).name}, line {last[0].lineno}" if last else ""
    from nextword.machine.about import versions

    known = versions()
    packages = ", ".join(f"{name} {known[name]}" for name in ("nextword", "python", "torch"))
    return (
        f"this is a mistake of the program's own ({type(error).__name__}{place}; {packages}); "
        f"please report it: {kept}, and `{ABOUT}` prints the rest"
    )


def _of_the_machine(error: Exception) -> str:
    """Say what the machine lacks or forbids, where that ended a command; else nothing."""
    first = " ".join(str(error).split()).partition(". ")[0]
    if isinstance(error, OSError) and error.errno and error.errno in _FULL_OR_CLOSED:
        name = str(error.filename or "")
        place = f"{name[:255]}: " if name else ""
        return f"{place}{os.strerror(error.errno)}"
    if is_left_alone(error):
        return (
            "another of the processes has ended or does not answer; `--resume` goes on from the "
            "last checkpoint"
        )
    if is_out_of_memory(error):
        return (
            f"the memory is not enough ({first or 'MemoryError'}); a smaller model, context or "
            "batch needs less"
        )
    return ""


_FULL_OR_CLOSED: tuple[int, ...] = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.EFBIG, errno.EIO, errno.ENOLCK),
    *((errno.ESTALE,) if hasattr(errno, "ESTALE") else ()),  # of a network disk
)


def _is_text(word: str) -> bool:
    """Whether an argument's bytes were UTF-8; Python keeps all others as lone surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in word)


def _dashes(word: str) -> str:
    """Let options be written with dashes or underscores alike."""
    if word == "-":
        return _STANDARD_INPUT
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value


def named(paths: tuple[str, ...]) -> tuple[str, ...]:
    """Give "-" back its name."""
    return tuple("-" if path == _STANDARD_INPUT else path for path in paths)


def text_of(word: str) -> str:
    """Return a text given on the command line; "-" stands for standard input, in UTF-8.

    Raises:
        CorpusError: it is not UTF-8.
    """
    if word != _STANDARD_INPUT:
        return word
    try:
        text = sys.stdin.buffer.read().decode("utf-8")
        return io.StringIO(text, newline=None).read().rstrip("\n")
    except UnicodeDecodeError as error:
        raise CorpusError(f"standard input, byte {error.start} is not UTF-8; convert it") from None


def leave(message: str, status: int) -> NoReturn:
    """Say one line on the error stream and end with a status."""
    print(for_stream(f"nextword: {message}", sys.stderr), file=sys.stderr)  # noqa: T201
    sys.exit(status)


def say(line: str) -> None:
    """Say a line beside the output, which may be JSON or text to pipe on."""
    print(for_stream(line, sys.stderr), file=sys.stderr, flush=True)  # noqa: T201


def write(text: str, *, end: str = "\n", is_colored: bool = False) -> None:
    """Write a verb's output; one that is colored on purpose has signs in it already."""
    sys.stdout.write((text if is_colored else for_stream(text, sys.stdout)) + end)
    sys.stdout.flush()


def takes(
    rooms: tuple[str, ...], *, prefix: bool = True, own: Mapping[str, type] = {}
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a verb the options of settings rooms; it receives them as {"room.name": value}.

    Args:
        rooms: of a run's settings.
        prefix: whether an option's name begins with its room's.
        own: rooms that no run has: their names, and the classes that declare their options.
    """

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        named = [
            p for p in inspect.signature(verb).parameters.values() if p.kind is not p.VAR_KEYWORD
        ]
        kind = inspect.Parameter.KEYWORD_ONLY
        found = [*all_options(*rooms)] if rooms else []
        found += [option for room, class_ in own.items() for option in options_of(room, class_)]
        options = {f"{option.room}__{option.name}": option for option in found}
        added = [
            inspect.Parameter(key, kind, default=None, annotation=_annotation(option, prefix))
            for key, option in options.items()
        ]

        def run(*args: Any, **kwargs: Any) -> None:
            given = {options[key].path: kwargs.pop(key) for key in list(kwargs) if key in options}
            verb(
                *args,
                **kwargs,
                **{path: value for path, value in given.items() if value is not None},
            )

        run.__name__, run.__doc__ = verb.__name__, verb.__doc__
        run.__signature__ = inspect.Signature([*named, *added])  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in [*named, *added]}
        return run

    return decorate


def _annotation(option: Option, prefix: bool) -> Any:
    words = option.help
    if option.choices:
        words += f"; one of {', '.join(option.choices)}"
    if default := option.default_words:
        from_what = f", from {' and '.join(option.of)}" if option.of else ""
        words += f" [default: {default}{from_what}]"
    name = "--" + (option.path if prefix else option.name).replace("_", "-")
    negative = f"--no-{name[2:]}" if option.type is bool else ()
    if option.name == "name":  # a room that is chosen by name is chosen by its own
        # The longer name first: cyclopts takes the other for the beginning of it.
        name = [name, f"--{option.room}"]  # type: ignore[assignment]
    kind: Any = tuple[str, ...] if option.type is tuple else option.type
    return Annotated[
        kind | None, Parameter(name=name, help=words, negative=negative, show_default=False)
    ]
