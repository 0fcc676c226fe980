"""Exceptions: every error that nextword raises on purpose.

    NextwordError            one clear line: what, where, what to do
    ├── SettingsError        an unknown option, a value out of range, a recipe that cannot be read
    ├── CorpusError          a text that is missing, empty, damaged or too short
    ├── VocabularyError      a vocabulary that is missing or cannot do what was asked
    ├── ModelError           a model folder that is missing, damaged or of a kind not known here;
    │                        ids that a network cannot read
    ├── RunError             a run or checkpoint that does not exist, or exists already
    ├── TrainingError        training cannot go on
    │   └── DivergedError    the loss is not a number any more
    ├── EvaluationError      there is nothing to score
    └── ServingError         a request that cannot be answered
        ├── ApiError         as the endpoint and the live page tell it (serve/errors.py)
        └── QueueFullError   more texts wait than may (serve/engine.py)

The command line prints the message on one line and leaves with status 2 (with --debug it shows
where it came from, too); a caller in Python catches the class. Whatever else comes out is a mistake
of the program's own: one line that asks for a report and names the versions, and status 1.
"""


class NextwordError(Exception):
    """Something the user can put right; the message says what, where and what to do."""


class SettingsError(NextwordError):
    """An unknown option, a value out of range, or a recipe that cannot be read."""


class CorpusError(NextwordError):
    """A text that is missing, empty, damaged or too short."""


class VocabularyError(NextwordError):
    """A vocabulary that is missing or cannot do what was asked."""


class ModelError(NextwordError):
    """A model folder that is missing, damaged or of a kind not known here; ids it cannot read."""


class RunError(NextwordError):
    """A run or checkpoint that does not exist, or exists already."""


class TrainingError(NextwordError):
    """Training cannot go on."""


class DivergedError(TrainingError):
    """The loss or the gradient is not a number any more."""

    step: int | None = None
    """Whose batch it was, counted from 0, where that is known."""


class EvaluationError(NextwordError):
    """There is nothing to score."""


class ServingError(NextwordError):
    """A request that cannot be answered."""


NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")
"""What torch says on a CPU, on Windows and on other devices."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice; torch need not be there to ask."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in NO_MEMORY)


LEFT_ALONE = 75
"""The status of a command that may go well another time (EX_TEMPFAIL of BSD's sysexits)."""


def is_left_alone(error: BaseException) -> bool:
    """Whether an error says that another of several processes is gone or does not answer."""
    names = {kind.__name__ for kind in type(error).__mro__}  # torch need not be there to ask
    said = str(error)
    return "DistError" in names or (
        "RuntimeError" in names
        and any(words in said for words in ("gloo/transport", "ncclRemoteError"))
    )
