from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mnv2tl import store
from mnv2tl.config import TRACKERS, TrainConfig
from mnv2tl.errors import InterruptError, MachineError, install_extra
from mnv2tl.state import Best, Commit, StateStore
from mnv2tl.trackers import NOTES, list_figures, open_trackers, require_trackers

# Their own affairs: SQLAlchemy tells MLflow what it will no longer take, and the like.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

_INFO: dict[str, Any] = {
    "best_epoch": 2,
    "val_accuracy": 0.75,
    "val_loss": 0.5,
    "temperature": 1.25,
    "ece": {"before": 0.2, "after": 0.1},
    "seconds": {"scan": 1.0, "total": 9.0},
    "history": [],
}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Refuse every connection that leaves this machine or goes to a port of it."""
    connect, tried = socket.socket.connect, []

    def refuse(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX:  # W&B talks so to a process of its own
            tried.append(address)
            raise ConnectionRefusedError("no network in tests")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_MODE", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name in ("MLFLOW_DISABLE_TELEMETRY", "WANDB_ERROR_REPORTING"):
        monkeypatch.setenv(name, os.environ.get(name, "true"))
        monkeypatch.delenv(name)
    yield
    allowed = {("127.0.0.1", 9)}  # a test names this one
    assert set(tried) <= allowed


def _row(epoch: int) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "phase": 0,
        "loss": 1.0 / epoch,
        "accuracy": 0.5,
        "val_loss": 2.0 / epoch,
        "val_accuracy": 0.25,
        "seconds": 1.5,
    }


def _config(tmp_path: Path, *trackers: str) -> TrainConfig:
    out = tmp_path / "place with spaces" / "run"
    out.mkdir(parents=True, exist_ok=True)
    store.write_sealed_json(out / "run.json", _INFO)
    (out / "curves.png").write_bytes(
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x00\x00\x00\x00"
        b":~\x9bU\x00\x00\x00\nIDATx\x9cc`\x00\x00\x00\x02\x00\x01H\xaf\xa4q\x00\x00\x00\x00IEND"
        b"\xaeB`\x82"
    )
    return TrainConfig(data=tmp_path / "data", out=out, seed=7, trackers=trackers)


def _train(config: TrainConfig, *epochs: int) -> None:
    """Tell the trackers of epochs, as a training does that is stopped or finished."""
    with open_trackers(config) as trackers:
        for epoch in epochs:
            trackers.write(_row(epoch))


def _train_until_stopped(config: TrainConfig) -> None:
    """Tell the trackers of one epoch, and then of a signal."""
    with contextlib.suppress(InterruptError), open_trackers(config) as trackers:
        trackers.write(_row(1))
        raise InterruptError(15, "stopped")


def _commit(config: TrainConfig, epochs: int) -> None:
    """Write the state of a training after some epochs."""
    state = StateStore(config.out / "state")
    file = state.save_arrays("epoch", {})
    history = tuple(_row(epoch) for epoch in range(1, epochs + 1))
    best = Best(epoch=1, phase=0, value=1.0, file=file)
    state.commit(Commit(phase=0, file=file, history=history, best=best))


def _notes(config: TrainConfig) -> Any:
    return json.loads((config.out / NOTES).read_bytes())


def _read_wandb(folder: Path) -> bytes:
    """Return the file of an offline run; a process of W&B's own writes it a moment later."""
    (path,) = folder.glob("*.wandb")
    end = time.monotonic() + 20
    while path.stat().st_size < 100 and time.monotonic() < end:
        time.sleep(0.05)
    return path.read_bytes()


def _mlflow_runs(config: TrainConfig) -> tuple[Any, list[Any]]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{config.out.parent / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("mnv2tl")
    return client, client.search_runs([experiment.experiment_id])


def test_mlflow_reads_back_what_it_was_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Settings, every epoch, the result and both files, through MLflow's own client."""
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    config = _config(tmp_path, "mlflow")

    _train(config, 1, 2)

    client, (run,) = _mlflow_runs(config)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "run")
    assert run.data.params["seed"] == "7"
    assert run.data.params["scan.split_rule"] == config.scan.split_rule
    history = client.get_metric_history(run.info.run_id, "val_loss")
    assert [(each.step, each.value) for each in history] == [(1, 2.0), (2, 1.0)]
    assert run.data.metrics["final_val_accuracy"] == 0.75
    assert run.data.metrics["ece_after"] == 0.1
    files = client.list_artifacts(run.info.run_id)
    assert [each.path for each in files] == ["curves.png", "run.json"]
    copy = client.download_artifacts(run.info.run_id, "run.json", str(tmp_path))
    assert Path(copy).read_bytes() == (config.out / "run.json").read_bytes()
    assert f"mlflow: run {run.info.run_id} in sqlite:///" in capsys.readouterr().err


def test_mlflow_goes_on_with_the_run_of_a_stopped_training(tmp_path: Path) -> None:
    """One run in the store; an epoch that was committed but not told is told later."""
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    config = _config(tmp_path, "mlflow")
    _train_until_stopped(config)
    client, (run,) = _mlflow_runs(config)
    assert run.info.status == "KILLED"
    _commit(config, epochs=3)

    _train(config, 3)

    _, (run,) = _mlflow_runs(config)
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [each.step for each in history] == [1, 2, 3]
    assert _notes(config)["mlflow"]["epoch"] == 3


def test_mlflow_is_told_at_the_end_what_a_kill_kept_from_it(tmp_path: Path) -> None:
    """The last epoch was committed, and the process killed before the tracker heard of it."""
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    config = _config(tmp_path, "mlflow")
    store.write_sealed_json(config.out / "run.json", _INFO | {"history": [_row(1), _row(2)]})

    _train(config, 1)

    client, (run,) = _mlflow_runs(config)
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [each.step for each in history] == [1, 2]
    assert _notes(config)["mlflow"]["epoch"] == 2


def test_mlflow_starts_anew_where_its_run_is_gone(tmp_path: Path) -> None:
    """The store was removed; the whole history is told again."""
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    config = _config(tmp_path, "mlflow")
    (config.out / NOTES).write_text('{"mlflow": {"id": "0123456789abcdef", "epoch": 1}}')
    _commit(config, epochs=2)

    _train(config, 2)

    client, (run,) = _mlflow_runs(config)
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [each.step for each in history] == [1, 2]


def test_a_server_that_does_not_answer_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One warning, and nothing more is sent."""
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    _train(_config(tmp_path, "mlflow"), 1, 2)

    lines = capsys.readouterr().err.splitlines()
    warnings = [line for line in lines if line.startswith("warning: mlflow failed")]
    assert len(warnings) == 1
    assert "the training goes on without it: MlflowException" in warnings[0]


def test_wandb_writes_files_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Offline unless WANDB_MODE says otherwise: settings, epochs and files lie in the run."""
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    config = _config(tmp_path, "wandb")

    _train(config, 1, 2)

    (folder,) = (config.out / "wandb").glob("offline-run-*")
    content = _read_wandb(folder)
    for word in (b"val_accuracy", b"final_val_loss", b"split_rule", b"curves.png"):
        assert word in content
    names = {path.name for path in (folder / "files").iterdir()}
    assert names == {"curves.png", "run.json"}
    said = capsys.readouterr().err
    assert folder.name in said
    assert "nothing is sent until: wandb sync" in said


def test_wandb_goes_on_under_the_same_id(tmp_path: Path) -> None:
    """Each part has files of its own; `wandb sync` puts them together by the id."""
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    config = _config(tmp_path, "wandb")
    _train_until_stopped(config)
    run_id = _notes(config)["wandb"]["id"]

    _train(config, 2)

    parts = sorted((config.out / "wandb").glob("offline-run-*"))
    assert [path.name for part in parts for path in part.glob("*.wandb")] == [
        f"run-{run_id}.wandb"
    ] * 2
    assert all(b"val_loss" in _read_wandb(part) for part in parts)


def test_a_tracker_that_cannot_write_ends_no_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One warning of one line; the others are still told."""
    pytest.importorskip("tensorboardX")
    config = _config(tmp_path, "tensorboard")
    (config.out / "tensorboard").write_bytes(b"a file where the folder would be")

    _train(config, 1, 2)

    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: tensorboard failed, and the training goes on without it: ")


def test_nothing_is_opened_before_the_first_epoch(tmp_path: Path) -> None:
    """A training that fails on its data leaves no run behind in a tracker."""
    config = _config(tmp_path, *TRACKERS)
    before = sorted(config.out.rglob("*"))

    with pytest.raises(KeyError), open_trackers(config):
        raise KeyError

    assert sorted(config.out.rglob("*")) == before


@pytest.mark.parametrize("name", TRACKERS)
def test_a_missing_package_is_named_with_its_extra(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E508 before anything is trained."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(MachineError) as caught:
        require_trackers([name])

    assert (caught.value.code, caught.value.fix) == ("E508", install_extra(name))


def test_the_figures_of_a_run_have_names_of_their_own() -> None:
    """No row of the history uses them, so a chart never mixes the two."""
    figures = list_figures(_INFO)

    assert figures["final_val_loss"] == 0.5
    assert figures["seconds_total"] == 9.0
    assert not figures.keys() & _row(1).keys()
