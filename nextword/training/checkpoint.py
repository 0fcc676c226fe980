"""Checkpoints: Hugging Face model folders with the optimizer's and the loop's state inside.

    step-000500/            config.json, model.safetensors, tokenizer.json, …: a model folder
    step-000500/training/   optimizer.safetensors, state.json, manifest.json (digests of all files)

A checkpoint is written aside, brought to the disk and renamed, so its name never stands for half of
it.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from msgspec import Struct
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from nextword.base.errors import RunError
from nextword.base.files import digest_of_file, publish
from nextword.base.records import Count, read_record
from nextword.machine.copies import Copies
from nextword.machine.parts import is_divided, part_of, resting_weights, rows_like
from nextword.machine.ranks import Meeting, Ranks
from nextword.model.folder import Snapshot, write_model
from nextword.model.layouts import Ids
from nextword.model.transformer import Transformer
from nextword.training.eager_optimizer import EagerOptimizer
from nextword.training.vouched import MANIFEST, OPTIMIZER, STATE
from nextword.vocabulary.tokenizer import Vocabulary

FOLDER = "checkpoints"
JINJA = "chat_template.jinja"
"""Where newer programs look for how a chat is written down."""


@dataclass(frozen=True)
class Checkpoint:
    """One saved step of a run."""

    folder: Path
    step: int
    holdout_loss: float | None
    """On the hold-out, in the objective's own unit, if it was evaluated at this step."""
    seconds_left: float | None = None
    """Of a run that follows the clock."""
    is_unfinished: bool = False
    """Whether its evaluation was due and was left."""


def list_checkpoints(run: Path) -> list[Checkpoint]:
    """List a run's checkpoints by step."""
    read = (_read_state(folder) for folder in (run / FOLDER).glob("step-*"))
    return sorted((one for one in read if one is not None), key=lambda point: point.step)


def unreadable_checkpoints(run: Path) -> list[Path]:
    """List the folders that have a checkpoint's name and do not say which step they are of."""
    folders = sorted((run / FOLDER).glob("step-*"))
    return [folder for folder in folders if _read_state(folder) is None]


def _read_state(folder: Path) -> Checkpoint | None:
    try:
        known = read_record(folder / STATE / "state.json", _State, RunError)
    except RunError:
        return None
    return Checkpoint(
        folder, known.step, known.holdout_loss, known.seconds_left, known.is_unfinished
    )


class _State(Struct):
    """What is read again of a checkpoint's state.json."""

    step: Count
    holdout_loss: float | None
    seconds_left: float | None = None
    is_unfinished: bool = False


def best_of(checkpoints: Sequence[Checkpoint]) -> Checkpoint:
    """Return the checkpoint with the lowest loss on the hold-out.

    The last one where none was evaluated.
    """
    judged = [checkpoint for checkpoint in checkpoints if checkpoint.holdout_loss is not None]
    return (
        min(judged, key=lambda checkpoint: (checkpoint.holdout_loss, -checkpoint.step))
        if judged
        else checkpoints[-1]
    )


ALONE = Meeting(Ranks())


class TrainingSnapshot(NamedTuple):
    """Network and optimizers as they are at one moment, copied."""

    model: Snapshot
    optimizers: Copies
    """By weight and name of the state."""

    @classmethod
    def of(
        cls,
        model: Transformer,
        optimizers: Sequence[torch.optim.Optimizer],
        room: "TrainingSnapshot | None" = None,
    ) -> "TrainingSnapshot":
        """Copy them, or this process's rows; the state of optimizers in the type that it has.

        Args:
            model: the network.
            optimizers: of its weights.
            room: an earlier copy that nobody needs any more, to be written over.
        """
        names: dict[Any, str] = {weight: name for name, weight in resting_weights(model)}
        state = {
            f"{names[weight]}/{name}": part_of(torch.as_tensor(value), weight)
            for optimizer in optimizers
            for weight, values in optimizer.state.items()
            for name, value in values.items()
        }
        copies = Copies.of(state, room and room.optimizers, divided=is_divided(model))
        return cls(Snapshot.of(model, room and room.model), copies)


def save_checkpoint(
    run: Path,
    taken: TrainingSnapshot,
    vocabulary: Vocabulary,
    state: dict[str, Any],
    *,
    chat_template: str | None = None,
    meeting: Meeting = ALONE,
) -> Path:
    """Write one checkpoint atomically; one of the same step stays until the new one is whole.

    Of processes that divide the weights the first calls this, and the others `save_rows`: each
    writes its own rows into the one file, and nobody ever holds more than those.

    Args:
        run: the run's folder.
        taken: its network and optimizers.
        vocabulary: written beside the weights.
        state: holds at least `step` and `holdout_loss`.
        chat_template: how other programs write a chat down for this model, where it is one.
        meeting: of the processes that divide the weights.

    Returns:
        the checkpoint's folder.

    Raises:
        RunError: it could not be written; those before it are intact.
    """
    final, aside = _folders(run, state["step"])
    shutil.rmtree(aside, ignore_errors=True)
    try:
        _write(aside, taken, vocabulary, state, chat_template, meeting)
        # No folder can be renamed over another: for a moment there is none, and who goes on then
        # finds the old one where `mend_checkpoints` looks.
        if final.exists():
            final.rename(final.with_name(f".{final.name}{_OLD}"))
        publish(aside, final)
    except Exception as error:
        shutil.rmtree(aside, ignore_errors=True)
        mend_checkpoints(run)
        by_disk = isinstance(error, OSError | SafetensorError)
        mistake = _cannot_write(final, error) if by_disk else error
        meeting.call_off(str(mistake))  # nobody must wait for it
        raise mistake from None
    shutil.rmtree(final.with_name(f".{final.name}{_OLD}"), ignore_errors=True)
    meeting.come("published", times=10)  # all of it is read again before
    meeting.part()
    return final


def save_rows(run: Path, taken: TrainingSnapshot, step: int, meeting: Meeting) -> None:
    """Write this process's rows of a checkpoint that the first one makes; wait until it is whole.

    Args:
        run: the run's folder.
        taken: this process's rows of network and optimizers.
        step: of the checkpoint.
        meeting: of the processes that divide the weights.

    Raises:
        RunError: it could not be written; those before it are intact.
    """
    final, aside = _folders(run, step)
    meeting.come("laid out")
    try:
        taken.model.write_rows(aside)
        taken.optimizers.write_rows(aside / STATE / OPTIMIZER)
    except OSError as error:
        mistake = _cannot_write(final, error)
        meeting.call_off(str(mistake))
        raise mistake from None
    meeting.come("written")
    meeting.come("published", times=10)  # all of it is read again before
    meeting.part()


def _folders(run: Path, step: int) -> tuple[Path, Path]:
    """Return a checkpoint's folder, and where it is written before it has that name."""
    final = run / FOLDER / f"step-{step:06d}"
    return final, final.with_name(f".{final.name}{_ASIDE}")


def _cannot_write(final: Path, error: Exception) -> RunError:
    why = getattr(error, "strerror", None) or str(error)
    return RunError(
        f"{final}: cannot be written ({why}); the checkpoints before it are intact. Make room "
        f"and go on with: nextword train --resume {final.parents[1].name}"
    )


_ASIDE, _OLD, _GONE = ".aside", ".old", ".gone"


def mend_checkpoints(run: Path) -> None:
    """Clear away what a killed process left beside the checkpoints; called by the one writer."""
    for folder in (run / FOLDER).glob(".step-*"):
        final = folder.with_name(folder.stem.removeprefix("."))
        if folder.suffix == _OLD and not final.exists():
            folder.rename(final)
        elif folder.suffix in (_ASIDE, _OLD, _GONE):
            shutil.rmtree(folder, ignore_errors=True)


def _write(
    aside: Path,
    taken: TrainingSnapshot,
    vocabulary: Vocabulary,
    state: dict[str, Any],
    chat_template: str | None,
    meeting: Meeting,
) -> None:
    (aside / STATE).mkdir(parents=True)
    known = write_folder(aside, taken.model, vocabulary, chat_template)
    known[f"{STATE}/{OPTIMIZER}"] = taken.optimizers.write(aside / STATE / OPTIMIZER)
    meeting.come("laid out")
    meeting.come("written")
    (aside / STATE / "state.json").write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
    names = [str(f.relative_to(aside).as_posix()) for f in sorted(aside.rglob("*")) if f.is_file()]
    digests = {name: known.get(name) or digest_of_file(aside / name) for name in names}
    (aside / STATE / MANIFEST).write_text(json.dumps(digests, indent=2) + "\n", encoding="utf-8")


def write_folder(
    folder: Path, model: Snapshot, vocabulary: Vocabulary, chat_template: str | None = None
) -> dict[str, str]:
    """Write a model folder, as other programs open it: weights, shape and vocabulary.

    Returns:
        digests of large files by name.
    """
    named = (vocabulary.end_id, vocabulary.pad_id, vocabulary.mask_id, vocabulary.other_ends)
    digests = write_model(model, folder, Ids(*named))
    vocabulary.save(
        folder,
        template=template_of(model, vocabulary),
        context=model.shape.context,
        names_are_read=not model.shape.causal,
    )
    if chat_template is not None:
        add_chat_template(folder, chat_template)
    return digests


def add_chat_template(folder: Path, template: str) -> None:
    """Write how a chat is written down into a folder's tokenizer_config.json, and beside it.

    The template itself puts end-of-text where it belongs, so its name must be read as that entry.
    """
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config |= {"chat_template": template, "split_special_tokens": False}
    file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / JINJA).write_text(template, encoding="utf-8")


def template_of(model: Snapshot, vocabulary: Vocabulary) -> str:
    """Say what a text stands between when the network reads it, for other programs.

    A language model reads it after end-of-text, and leaves open whether more would follow; one with
    labels reads it between two end-of-texts. Where end-of-text also fills rows up, a causal network
    with labels must find the text's last token before it.
    """
    if model.labels is None:
        return "begin"
    return "begin" if model.shape.causal and vocabulary.pad_id is None else "both"


def restore_optimizers(
    folder: Path, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]
) -> None:
    """Give optimizers the state they had when the checkpoint was saved, or this process's rows.

    Raises:
        RunError: the state is damaged.
    """
    try:
        saved = load_file(folder / STATE / OPTIMIZER)
    except (SafetensorError, OSError) as error:
        raise RunError(f"{folder}: damaged optimizer state ({error})") from None
    names = {weight: name for name, weight in resting_weights(model)}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            # A fused optimizer counts its steps where the weights are, another on the CPU.
            counts_there = group.get("fused") or group.get("capturable")
            for weight in group["params"]:
                prefix = names[weight] + "/"
                entries = {
                    key.removeprefix(prefix): value
                    for key, value in saved.items()
                    if key.startswith(prefix)
                }
                if entries and isinstance(optimizer, EagerOptimizer):
                    found = {key: value.shape for key, value in entries.items()}
                    if found != optimizer.kept_shapes(weight):
                        raise RunError(
                            f"{folder}: damaged optimizer state: of {names[weight]} it holds "
                            f"{', '.join(sorted(entries))[:80]}"
                        )
                if entries:
                    optimizer.state[weight] = {
                        key: _rows_like(value, weight).to(
                            "cpu" if key == "step" and not counts_there else weight.device
                        )
                        for key, value in entries.items()
                    }


def _rows_like(whole: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the rows of a whole tensor that this process holds of a weight of its shape."""
    part = part_of(weight)
    if whole.shape != part.shape or whole.shape == part.rows.shape:
        return whole
    return rows_like(whole, part).clone()


def remove_checkpoints(checkpoints: Sequence[Checkpoint], keep: Sequence[int]) -> None:
    """Delete all but the steps to keep."""
    for checkpoint in checkpoints:
        if checkpoint.step not in keep:
            gone = checkpoint.folder.with_name(f".{checkpoint.folder.name}{_GONE}")
            checkpoint.folder.rename(gone)  # half of one must not stand under a checkpoint's name
            shutil.rmtree(gone, ignore_errors=True)
