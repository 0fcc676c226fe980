"""Command line: models and runs for other programs."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from nextword.cli.program import EXPORT, AsJson, Run, app, say, write

if TYPE_CHECKING:
    from nextword.export.embeddings import Exported as EmbeddingsFolder
    from nextword.export.gguf import Exported as GgufFile
    from nextword.export.onnx import Exported as OnnxFolder
    from nextword.export.peft import Adapter
    from nextword.prediction.loading import Opened


@app.command(group=EXPORT)
def export(
    run: Run = "latest",
    *,
    to: Annotated[
        Literal["gguf", "onnx", "sentence-transformers", "peft"],
        Parameter(
            help="the form: gguf, for llama.cpp, Ollama and LM Studio; onnx, for onnxruntime, "
            "Optimum and Transformers.js; sentence-transformers, which makes vectors of texts; "
            "peft, the adapter of a run that was taught with LoRA"
        ),
    ] = "gguf",
    type_: Annotated[
        Literal["f32", "f16", "bf16", "q8_0"] | None,
        Parameter(name="--type", help="of a GGUF's matrices; norms stay float32 [default: f16]"),
    ] = None,
    output: Annotated[
        Path | None,
        Parameter(
            name=["--output", "-o"],
            help="file to make [default: RUN.gguf], or folder [default: RUN-onnx, RUN-embeddings, "
            "RUN-adapter]",
        ),
    ] = None,
    force: Annotated[bool, Parameter(negative=(), help="replace what is there of it")] = False,
    json_: AsJson = False,
) -> None:
    """Write a model in the form that other programs run, or as an adapter.

    Programs that read Hugging Face's model folders need none of this: a checkpoint is one.
    """
    from nextword.base.errors import SettingsError
    from nextword.machine.options import MachineSettings
    from nextword.prediction.loading import open_model

    if type_ is not None and to != "gguf":
        raise SettingsError(f"--type {type_}: is a GGUF's; {to} is written in float32")
    opened = open_model(run, MachineSettings(device="cpu"))
    name = opened.run.name if opened.run else opened.name
    asked = f"{name}-{opened.step}" if opened.run and "@" in run else name
    done: GgufFile | OnnxFolder | EmbeddingsFolder | Adapter
    if to == "peft":
        done, told = _peft(opened, output or Path(f"{asked}-adapter"), force=force)
    elif to == "onnx":
        done, told = _onnx(opened, output or Path(f"{asked}-onnx"), force=force)
    elif to == "sentence-transformers":
        done, told = _embeddings(opened, output or Path(f"{asked}-embeddings"), force=force)
    else:
        done, told = _gguf(opened, output or Path(f"{asked}.gguf"), type_ or "f16", force=force)
    write(json.dumps(done._asdict(), default=str) if json_ else told)


def _peft(opened: "Opened", output: Path, *, force: bool) -> "tuple[Adapter, str]":
    from nextword.export.peft import write_adapter

    done = write_adapter(opened, output, force=force)
    size = f"{done.bytes / 1e6:.2f} MB"
    return done, f"{done.folder}: rank {done.rank}, {size}; it belongs to {done.base}"


def _onnx(opened: "Opened", output: Path, *, force: bool) -> "tuple[OnnxFolder, str]":
    from nextword.export.onnx import write_onnx

    done = write_onnx(opened, output, force=force)
    inputs = ", ".join(done.inputs) + (", and what was read before" if done.keeps else "")
    return done, f"{done.folder}: {done.bytes / 1e6:.1f} MB in float32; it reads {inputs}"


def _embeddings(opened: "Opened", output: Path, *, force: bool) -> "tuple[EmbeddingsFolder, str]":
    from nextword.export.embeddings import write_embeddings

    done = write_embeddings(opened, output, force=force)
    return done, (
        f"{done.folder}: {done.bytes / 1e6:.1f} MB; a text becomes {done.width} numbers: "
        f"SentenceTransformer({str(done.folder)!r})"
    )


def _gguf(opened: "Opened", output: Path, type_: str, *, force: bool) -> "tuple[GgufFile, str]":
    from nextword.export.gguf import write_gguf

    done = write_gguf(opened, output, type_, force=force)
    if done.wider:
        say(
            f"{done.wider} matrices are written as f16: q8_0 takes rows that divide into blocks of "
            "32, and theirs do not"
        )
    if done.loses_unknown:
        say(
            "characters that the vocabulary does not know vanish in llama.cpp, which has no entry "
            "for what is unknown"
        )
    name = opened.run.name if opened.run else opened.name
    size = f"{done.bytes / 1e6:.1f} MB"
    return done, (
        f"{done.file}: {size}, {done.tensors} tensors, {type_}; for Ollama: "
        f"ollama create {name} -f {done.modelfile}"
    )


@app.command(group=EXPORT)
def track(
    run: Annotated[str, Parameter(help="a run's name or path, or latest")] = "latest",
    *,
    to: Annotated[
        Literal["tensorboard", "wandb", "mlflow", "trackio"], Parameter(help="the tracker")
    ],
    follow: Annotated[
        bool, Parameter(negative=(), help="go on with what is added, until Ctrl-C")
    ] = False,
    quiet: Annotated[bool, Parameter(negative=(), help="say nothing")] = False,
    of: Annotated[int | None, Parameter(show=False)] = None,
) -> None:
    """Tell a tracker of a run, its curves, samples and settings.

    Nothing leaves this machine, unless the tracker's own variables say so.
    """
    from nextword.track.start import follow_parent, follow_run

    tell = (lambda line: None) if quiet else say
    if of is not None:  # as `train --track` starts it
        follow_parent(of, to, tell)
    else:
        said = follow_run(run, to, tell, forever=follow)
        if not quiet:
            write(said)


@app.command(group=EXPORT)
def push(
    run: Run,
    repository: Annotated[str, Parameter(help="OWNER/NAME on the Hub, or where HF_ENDPOINT says")],
    *,
    private: Annotated[
        bool, Parameter(negative=(), help="let nobody else see it, where it is made now")
    ] = False,
    whole: Annotated[
        bool, Parameter(negative=(), help="the state of training too, to go on with it elsewhere")
    ] = False,
    license_: Annotated[
        str, Parameter(name="--license", help="of the weights, for the card, as in apache-2.0")
    ] = "",
    watts: Annotated[
        float | None, Parameter(help="that the machine drew, for the energy in the card")
    ] = None,
    revision: Annotated[str | None, Parameter(help="branch to push to")] = None,
    output: Annotated[
        Path | None,
        Parameter(name=["--output", "-o"], help="write the folder there and send nothing"),
    ] = None,
    json_: AsJson = False,
) -> None:
    """Push a model to the Hub, with a card.

    What it read, how good it is, how it is used.
    """
    from nextword.base.errors import SettingsError
    from nextword.export import hub
    from nextword.export.card import read_card

    if watts is not None and not 0 < watts < 1e9:
        raise SettingsError(f"--watts {watts}: above 0")
    card = read_card(run, repository, license_=license_, watts=watts)
    files = hub.gather(run, card, whole=whole, say=say)
    if output is not None:
        hub.write_copy(files, output)
        place = str(output)
    else:
        place = hub.push(files, repository, private=private, revision=revision, say=say)
    if json_:
        write(json.dumps({"place": place, "files": sorted(files)}))
        return
    write(f"{len(files)} files: {place}")
