"""What a run reads at a step: windows of its text, what else is expected there, what is written.

A pure function of the step, the rows and the run's pace: whoever goes on from a checkpoint, and
whoever shares the rows with others, reads the same.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nextword.base.errors import SettingsError
from nextword.machine.device import Machine
from nextword.prediction.soft_targets import SoftTargets
from nextword.prediction.teachers import Teachers, find_teachers
from nextword.prediction.writer import Writer
from nextword.targets.batch import Batch, joined
from nextword.targets.windows import Mixture, Windows
from nextword.training.options import TrainingSettings
from nextword.training.plan import TAUGHT, default_soft_targets, default_written
from nextword.training.schedule import Pace, soft_share
from nextword.vocabulary.prepared import Prepared

FOLDS = 8
"""Of the text, each of which has what counting all others expects as soft targets."""


def with_soft_targets(
    said: TrainingSettings, prepared: Prepared, *, causal: bool, usual: bool
) -> TrainingSettings:
    """Resolve how much of the targets others expect, and how many of the rows counting writes.

    Args:
        said: what was said.
        prepared: the text.
        causal: it is read for its next tokens.
        usual: what counting expects is learned where nothing else is said: of a text of one's own.

    Raises:
        SettingsError: it is asked for where nothing can be counted.
    """
    soft, written, taught = said.soft_targets, said.written, said.teacher is not None
    several = len(prepared.portions) > 1
    if (written or (soft and not taught)) and (several or not causal):
        why = "several texts are mixed" if several else "a masked model reads both sides"
        asked = f"written = {written}" if written else f"soft_targets = {soft}"
        raise SettingsError(
            f"training.{asked}: {why}, and counting says what comes next in one text; leave it out"
        )
    counts, tokens = usual and not several, len(prepared.train)
    if soft is None:
        soft = TAUGHT if taught else default_soft_targets(tokens) if counts else 0.0
    if written is None:
        written = default_written(tokens) if counts and soft else 0.0
    return dataclasses.replace(said, soft_targets=soft, written=written)


def expectations(
    prepared: Prepared, training: TrainingSettings, machine: Machine
) -> SoftTargets | Teachers:
    """Find who says what might have come: other models, or counting the rest of the text."""
    text, apart = prepared.train, training.within_documents
    if training.teacher is None:
        return SoftTargets(text, len(prepared.vocabulary), FOLDS, apart=apart)
    folders, apart = find_teachers(training.teacher), apart and text.num_documents > 1
    return Teachers.open(folders, prepared.vocabulary, machine, apart=apart)


@dataclass
class Lessons:
    """A text, as a run is to learn it."""

    batches: Callable[[int, slice], Batch]
    """Returns some rows of a step, as the text says it."""
    windows: Windows | Mixture
    """Which parts of the text these are."""
    tokens: int
    """Of the text."""
    pace: Pace
    soft_targets: SoftTargets | Teachers | None = None
    """What counting or other models expect; None for the text's own tokens alone."""
    soft_share: float = 0.0
    """Of each target at the first step."""
    writer: Writer | None = None
    written: int = 0
    """Of a step's rows, the last ones, those that it writes."""

    def read(self, step: int, rows: slice) -> Batch:
        """Return some rows of a step: windows of the text, and after them what counting wrote."""
        of_text = self.windows.rows
        first, end = rows.start, rows.stop
        if self.writer is None or end <= of_text:
            return self._read_text(step, rows)
        begins = step * self.written - of_text
        written = self.writer.rows(begins + max(first, of_text), begins + end)
        if first >= of_text:
            return written
        return joined(self._read_text(step, slice(first, of_text)), written)

    def _read_text(self, step: int, rows: slice) -> Batch:
        batch = self.batches(step, rows)
        share = soft_share(self.soft_share, *self.pace.place(step))
        if self.soft_targets is None or share <= 0:
            return batch
        if isinstance(self.soft_targets, Teachers):
            return batch._replace(soft=self.soft_targets.added(batch, share))
        starts = np.array([start for _, start in self.windows.rows_of(step)[rows]])
        places = (starts[:, None] + np.arange(self.windows.context)) % self.tokens
        return batch._replace(soft=self.soft_targets.added(places, batch, share))
