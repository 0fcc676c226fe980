"""MLflow: in a database beside the runs, unless MLFLOW_TRACKING_URI says where."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when it is imported

from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from nextword.track.tracker import PROJECT, Known

for _log in ("mlflow", "alembic"):
    logging.getLogger(_log).setLevel(logging.WARNING)

AT_ONCE, PARAMETERS_AT_ONCE = 1000, 100
"""What MLflow takes in one call."""


class MLflow:
    """One run of MLflow's."""

    def __init__(self, known: Known, folder: Path, id_: str | None) -> None:
        """Begin a run, or go on with it."""
        del folder  # one database holds all runs
        runs = known.folder.parent.resolve()
        named = os.environ.get("MLFLOW_TRACKING_URI", "")
        place = named or f"sqlite:///{runs / 'mlflow.db'}"
        # An address may hold a password, which is neither shown nor written down.
        shown = '"$MLFLOW_TRACKING_URI"' if named else place
        self.where = f"mlflow ui --backend-store-uri {shown}"
        if named.startswith("http"):
            self.where = "the page of $MLFLOW_TRACKING_URI"
        self._client = MlflowClient(tracking_uri=place)
        if id_ is None:
            id_ = self._client.create_run(self._experiment(runs), run_name=known.name).info.run_id
            told = [Param(name, str(value)) for name, value in known.settings.items()]
            for start in range(0, len(told), PARAMETERS_AT_ONCE):
                self._client.log_batch(id_, params=told[start : start + PARAMETERS_AT_ONCE])
        else:
            self._client.update_run(id_, "RUNNING")
        self.id = id_
        self._held: list[Metric] = []

    def _experiment(self, runs: Path) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        beside = None if os.environ.get("MLFLOW_TRACKING_URI") else (runs / "mlartifacts").as_uri()
        try:
            return str(self._client.create_experiment(name, artifact_location=beside))
        except MlflowException:  # another run was quicker
            if (found := self._client.get_experiment_by_name(name)) is None:
                raise
            return str(found.experiment_id)

    def numbers(self, step: int, when: float, values: Mapping[str, float]) -> None:
        """Take figures of one step."""
        stamp = int(1000 * when)
        self._held += [Metric(_named(name), value, stamp, step) for name, value in values.items()]
        if len(self._held) >= AT_ONCE:
            self.flush()

    def words(self, step: int, when: float, name: str, text: str) -> None:
        """Keep a text as a file."""
        del when
        self._client.log_text(self.id, text, f"{name}/step-{step:06d}.txt")

    def page(self, step: int, when: float, name: str, html: str, markdown: str) -> None:
        """Keep the colored sentences as a page."""
        del when, markdown
        page = f'<!doctype html><meta charset="utf-8"><title>{name}</title>{html}'
        self._client.log_text(self.id, page, f"{name}/step-{step:06d}.html")

    def forget(self) -> bool:
        """What it has it keeps."""
        return False

    def flush(self) -> None:
        """Hand on what was held."""
        for start in range(0, len(self._held), AT_ONCE):
            self._client.log_batch(self.id, metrics=self._held[start : start + AT_ONCE])
        self._held = []

    def close(self, *, ended: bool) -> None:
        """Say that the run has ended, or was stopped and may go on."""
        self.flush()
        self._client.set_terminated(self.id, "FINISHED" if ended else "KILLED")


def _named(name: str) -> str:
    """Return a name of the signs that MLflow allows."""
    return "".join(sign if sign.isalnum() or sign in "_-. /" else "_" for sign in name)


open_run = MLflow
