"""TensorBoard's event files, written beside the run."""

from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.hparams import summary_v2
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from nextword.track.tracker import Known


class TensorBoard:
    """Scalars, texts and hyperparameters, each event with the time that the journal tells."""

    def __init__(self, known: Known, folder: Path, id_: str | None) -> None:
        """Open a new file of events; TensorBoard reads all that lie in one folder as one run."""
        folder.mkdir(parents=True, exist_ok=True)
        self.id = id_ or known.name
        self.where = f"tensorboard --logdir {known.folder.parent}"
        self._known, self._folder = known, folder
        self._writer = EventFileWriter(str(folder))
        if id_ is None:
            self._introduce()

    def _introduce(self) -> None:
        known = self._known
        told = {name: value for name, value in known.settings.items() if value is not None}
        summary = summary_v2.hparams_pb(told, trial_id=known.name, start_time_secs=known.began)
        self._write(0, known.began, Summary(value=summary.value))

    def forget(self) -> bool:
        """Begin anew, for the journal went back and may go another way."""
        self._writer.close()
        for file in self._folder.glob("events.out.tfevents.*"):
            file.unlink()
        self._writer = EventFileWriter(str(self._folder))
        self._introduce()
        return True

    def _write(self, step: int, when: float, summary: Summary) -> None:
        self._writer.add_event(Event(wall_time=when, step=step, summary=summary))

    def numbers(self, step: int, when: float, values: Mapping[str, float]) -> None:
        """Take figures of one step."""
        found = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(step, when, Summary(value=found))

    def words(self, step: int, when: float, name: str, text: str) -> None:
        """Take a text, which TensorBoard reads as Markdown: as one that is printed as it stands."""
        self._text(step, when, name, "    " + text.replace("\n", "\n    "))

    def page(self, step: int, when: float, name: str, html: str, markdown: str) -> None:
        """Take the tables; it shows no HTML."""
        del html
        self._text(step, when, name, markdown)

    def _text(self, step: int, when: float, name: str, markdown: str) -> None:
        about = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
        shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
        tensor = TensorProto(
            dtype=DT_STRING, string_val=[markdown.encode("utf-8")], tensor_shape=shape
        )
        value = Summary.Value(tag=f"{name}/text_summary", metadata=about, tensor=tensor)
        self._write(step, when, Summary(value=[value]))

    def flush(self) -> None:
        """Bring all to the disk."""
        self._writer.flush()

    def close(self, *, ended: bool) -> None:
        """Close the file; it knows no end of a run."""
        del ended
        self._writer.close()


open_run = TensorBoard
