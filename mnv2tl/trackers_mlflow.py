"""Track a training in MLflow: in a database beside the run, or where MLFLOW_TRACKING_URI says."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mnv2tl import __version__

DATABASE = "mlflow.db"
"""Name of the file beside the run folder; the runs of one folder are compared in it."""
ARTIFACTS = "mlartifacts"
"""Name of the folder beside it."""
EXPERIMENT = "mnv2tl"
"""Name of the experiment, unless MLFLOW_EXPERIMENT_NAME is set."""

_STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
# What the user has set in the environment wins. A server that does not answer costs seconds.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


class MlflowTracker:
    """A run in MLflow.

    Args:
        folder: Of the run.
        name: What the run is called.
        settings: Shown as its parameters.
        known: Its id, if it was opened before.
    """

    def __init__(
        self, folder: Path, *, name: str, settings: Mapping[str, Any], known: str | None
    ) -> None:
        for variable, value in _ENVIRONMENT.items():
            os.environ.setdefault(variable, value)
        from mlflow.tracking import MlflowClient  # noqa: PLC0415  optional

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        wanted = os.environ.get("MLFLOW_TRACKING_URI")
        place = folder.resolve().parent
        self.uri = wanted or f"sqlite:///{place / DATABASE}"
        self.client = MlflowClient(tracking_uri=self.uri)
        self.id = self._find(known)
        if self.id is None:
            artifacts = None if wanted else (place / ARTIFACTS).as_uri()
            self.id = self._create(name, settings, artifacts)
        self.place = f"run {self.id} in {self.uri}"
        if not wanted:
            self.place += f"; to look at it: mlflow ui --backend-store-uri {self.uri}"

    def write(self, row: Mapping[str, Any]) -> None:
        """Write a row of the history."""
        names = ("loss", "accuracy", "val_loss", "val_accuracy", "seconds", "phase")
        self._log({name: row[name] for name in names if name in row}, step=row["epoch"])

    def write_end(self, figures: Mapping[str, float], files: Sequence[Path]) -> None:
        """Write the figures of the finished run, and keep a copy of its files."""
        self._log(figures, step=0)
        for path in files:
            self.client.log_artifact(self.id, str(path))

    def close(self, status: str) -> None:
        """Say how it ended: finished, stopped or failed."""
        self.client.set_terminated(self.id, _STATUS[status])

    def _find(self, known: str | None) -> str | None:
        """Open a run again; None if the store does not have it any more."""
        from mlflow.exceptions import MlflowException  # noqa: PLC0415

        if known is None:
            return None
        try:
            self.client.get_run(known)
        except MlflowException:
            return None
        self.client.update_run(known, status="RUNNING")
        return known

    def _create(self, name: str, settings: Mapping[str, Any], artifacts: str | None) -> str:
        from mlflow.entities import Param  # noqa: PLC0415

        wanted = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        found = self.client.get_experiment_by_name(wanted)
        experiment = (
            self.client.create_experiment(wanted, artifact_location=artifacts)
            if found is None
            else found.experiment_id
        )
        tags = {"mlflow.source.name": "mnv2tl train", "mnv2tl": __version__}
        run_id: str = self.client.create_run(experiment, run_name=name, tags=tags).info.run_id
        params = [Param(key, str(value)) for key, value in flatten(settings).items()]
        self.client.log_batch(run_id, params=params)
        return run_id

    def _log(self, figures: Mapping[str, float], *, step: int) -> None:
        from mlflow.entities import Metric  # noqa: PLC0415

        now = int(1000 * time.time())
        metrics = [Metric(name, float(value), now, step) for name, value in figures.items()]
        self.client.log_batch(self.id, metrics=metrics)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings under names with dots.

    >>> flatten({"seed": 0, "scan": {"workers": None}})
    {'seed': 0, 'scan.workers': None}
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
