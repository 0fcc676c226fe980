"""Command line: models and runs for other programs."""

import json
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from nextword.cli.program import EXPORT, AsJson, Run, app, say, write


@app.command(group=EXPORT)
def export(
    run: Run = "latest",
    *,
    to: Annotated[
        Literal["gguf", "peft"],
        Parameter(
            help="the form: gguf, for llama.cpp, Ollama and LM Studio; peft, the adapter of a run "
            "that was taught with LoRA"
        ),
    ] = "gguf",
    type_: Annotated[
        Literal["f32", "f16", "bf16", "q8_0"],
        Parameter(name="--type", help="of the matrices; norms stay float32"),
    ] = "f16",
    output: Annotated[
        Path | None,
        Parameter(
            name=["--output", "-o"],
            help="file to make [default: RUN.gguf], of peft the folder [default: RUN-adapter]",
        ),
    ] = None,
    force: Annotated[bool, Parameter(negative=(), help="replace files that are there")] = False,
    json_: AsJson = False,
) -> None:
    """Write a model as one file that other programs run, or as an adapter.

    Programs that read Hugging Face's model folders need none of this: a checkpoint is one.
    """
    from nextword.export.gguf import write_gguf
    from nextword.machine.options import MachineSettings
    from nextword.prediction.loading import open_model

    opened = open_model(run, MachineSettings(device="cpu"))
    name = (opened.run or opened.folder).name
    asked = f"{name}-{opened.step}" if opened.run and "@" in run else name
    if to == "peft":
        from nextword.export.peft import write_adapter

        adapter = write_adapter(opened, output or Path(f"{asked}-adapter"), force=force)
        write(
            json.dumps(adapter._asdict(), default=str)
            if json_
            else f"{adapter.folder}: rank {adapter.rank}, {adapter.bytes / 1e6:.2f} MB; it belongs "
            f"to {adapter.base}"
        )
        return
    file = output or Path(f"{asked}.gguf")
    done = write_gguf(opened, file, type_, force=force)
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
    if json_:
        write(json.dumps(done._asdict(), default=str))
        return
    write(
        f"{done.file}: {done.bytes / 1e6:.1f} MB, {done.tensors} tensors, {type_}; for Ollama: "
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
    """Tell a tracker of a run: its curves, samples, sentences and settings, once each.

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
    """Push a model to the Hub, with a card: what it read, how good it is, how it is used."""
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
