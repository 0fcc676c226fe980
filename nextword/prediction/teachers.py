"""Teachers: what models trained before expect at each place of a text.

A model is the better for learning also what another one expects, which was trained on the same
text from other first weights: the text says what came, the other one what might have come (Hinton
et al. 2015, distillation; that a network may teach one like itself: Furlanello et al. 2018). Of
several the logarithms of their odds are averaged.

Legend of shapes: B rows, T positions, V vocabulary, N positions in all.
"""

import dataclasses
import os.path
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nextword.base.errors import ModelError, SettingsError
from nextword.base.files import sha256_of
from nextword.machine.device import Machine
from nextword.model.folder import weight_files
from nextword.model.transformer import Transformer
from nextword.objectives.causal import documents_of
from nextword.prediction.evaluate import LOGITS_AT_ONCE
from nextword.prediction.loading import find_model_folder, open_model
from nextword.prediction.soft_targets import less_the_right
from nextword.targets.batch import Batch
from nextword.training.options import TrainingSettings
from nextword.training.step import seen_within
from nextword.vocabulary.tokenizer import Vocabulary


class Teachers:
    """Models that say what they expect where another one learns."""

    def __init__(
        self, models: Sequence[Transformer], vocab_size: int, end_id: int | None = None
    ) -> None:
        """Take the models.

        Args:
            models: with one vocabulary, ready to be asked.
            vocab_size: V.
            end_id: end-of-text, where positions keep to their own document; None lets them look
                across.
        """
        self.models, self.vocab_size, self.end_id = models, vocab_size, end_id
        # The mean of all their logits, which are logarithms of odds but for a number a row, as one
        # product: (the sum of their widths, V).
        weights = [model.output_weight.detach()[:vocab_size].float().T for model in models]
        self.weight = torch.cat(weights) / len(models)

    @classmethod
    def open(
        cls, folders: Sequence[Path], vocabulary: Vocabulary, machine: Machine, *, apart: bool
    ) -> "Teachers":
        """Read models, which `find_teachers` has found fitting.

        Args:
            folders: of the models.
            vocabulary: that they share.
            machine: where they compute, and how precisely.
            apart: whether positions keep to their own document.
        """
        models = [open_model(str(folder)).model.to(machine.device) for folder in folders]
        for model in models:
            model.set_precision(machine.precision)
        return cls(models, len(vocabulary), vocabulary.end_id if apart else None)

    def added(self, batch: Batch, share: float) -> NDArray[np.float32]:
        """Return what is added to the ones at the right tokens, (B, T, V).

        Args:
            batch: what is read, and the right tokens, (B, T).
            share: how much of each target is what the teachers expect.
        """
        return less_the_right(self.odds(batch), batch, share)

    @torch.inference_mode()
    def odds(self, batch: Batch) -> NDArray[np.float32]:
        """Return P(next) at each place, (B, T, V)."""
        device = self.models[0].device
        inputs = torch.from_numpy(batch.inputs).to(device)
        documents, positions = (
            None if given is None else torch.from_numpy(given).to(device)
            for given in (batch.documents, batch.positions)
        )
        if documents is None and self.end_id is not None:
            documents = documents_of(inputs, self.end_id)
        hidden = []
        for model in self.models:
            seen = None if documents is None else seen_within(model, documents)
            found = model.hidden(inputs, seen=seen, positions=positions)
            hidden.append(found.flatten(0, 1).float())
        joined = torch.cat(hidden, dim=1)
        odds = torch.empty(len(joined), self.vocab_size)
        rows = max(1, LOGITS_AT_ONCE // self.vocab_size)
        for start in range(0, len(odds), rows):
            part = slice(start, start + rows)
            odds[part] = (joined[part] @ self.weight).softmax(dim=-1)
        return odds.view(*batch.inputs.shape, self.vocab_size).numpy()


def with_teachers(said: TrainingSettings, *, causal: bool) -> tuple[TrainingSettings, list[Path]]:
    """Resolve the names of teachers to their folders, which a run writes down.

    Raises:
        SettingsError: they are asked for where nothing can be learned from them.
        RunError: there is no such run.
    """
    if said.teacher is None:
        return said, []
    if not causal:
        raise SettingsError(
            "training.teacher: a masked model reads both sides, and a teacher says what comes "
            "next; leave it out"
        )
    if said.soft_targets == 0:
        raise SettingsError(
            "training.teacher with training.soft_targets = 0: nothing would be learned from it; "
            "leave one of them out"
        )
    folders = find_teachers(said.teacher)
    return dataclasses.replace(said, teacher=",".join(map(str, folders))), folders


def find_teachers(asked: str | None) -> list[Path]:
    """Return the folders of models, given as runs, RUN@500 or folders, parted by commas.

    Raises:
        SettingsError: a name is missing.
        RunError: there is no such run.
    """
    if asked is None:
        return []
    names = _names(asked)
    if not all(names):
        raise SettingsError(
            f"training.teacher = {asked!r}: a name is missing; give a run or a model folder, or "
            "several parted by commas"
        )
    return [find_model_folder(name)[0].absolute() for name in names]


def _names(asked: str) -> list[str]:
    """Part at commas, but not within the path of a folder that is there."""
    names, pieces = [], asked.split(",")
    while pieces:
        together = (",".join(pieces[:end]).strip() for end in range(len(pieces), 1, -1))
        # A joined name may be longer than a system allows, which `Path.exists` would raise.
        name = next((name for name in together if os.path.exists(name)), pieces[0].strip())
        names.append(name)
        del pieces[: name.count(",") + 1]
    return names


def check_teachers(folders: Sequence[Path], vocabulary: Vocabulary, context: int) -> None:
    """Refuse teachers who cannot say what comes next where a run reads.

    Args:
        folders: of the models.
        vocabulary: of the run.
        context: tokens that it looks back on.

    Raises:
        SettingsError: a teacher is of another kind, has another vocabulary, or looks back less far.
        ModelError: a folder is damaged.
    """
    for folder in folders:
        opened = open_model(str(folder))
        who = f"training.teacher: {opened.name}"
        if not opened.model.shape.causal or opened.objective.head != "vocabulary":
            raise SettingsError(f"{who} does not say what comes next; name a model that does")
        ours, theirs = vocabulary.tokenizer.get_vocab(), opened.vocabulary.tokenizer.get_vocab()
        if ours != theirs or vocabulary.end_id != opened.vocabulary.end_id:
            raise SettingsError(
                f"{who} has another vocabulary than this run; train it on the same text, or take "
                f"its own: --vocabulary.source {folder}"
            )
        if opened.model.shape.context < context:
            most = opened.model.shape.context
            raise SettingsError(
                f"{who} looks back on {most:,} tokens, and this run on {context:,}; add "
                f"--model.context {most}"
            )


def digests_of(folders: Sequence[Path]) -> dict[str, list[str]]:
    """Return the digests of each teacher's weights, by which a resumed run knows them again."""
    return {str(folder): [sha256_of(file) for file in weight_files(folder)] for folder in folders}


def check_unchanged(known: Mapping[str, Sequence[str]]) -> None:
    """Refuse to go on with teachers that are not those a run began with.

    Args:
        known: the digests that it wrote down.

    Raises:
        SettingsError: one is gone, or another by now.
    """
    for folder, digests in known.items():
        try:
            now = digests_of([Path(folder)])[folder]
        except ModelError:
            now = []
        if now != list(digests):
            became = "another one now" if now else "not whole any more"
            raise SettingsError(
                f"{folder}: this run learns from the model there, and it is {became}; put back "
                "what was there, or train anew"
            )
