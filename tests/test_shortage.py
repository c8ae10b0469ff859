"""Fault row 42 where no training step is at fault: each stage names what helps it.

Nothing is limited: what computes asks for more memory than any machine has.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("keras")
pytest.importorskip("onnxruntime")

from mnv2tl.config import TrainConfig
from mnv2tl.data.augment import PRESETS
from mnv2tl.data.views import ViewMaker
from mnv2tl.errors import MachineError
from mnv2tl.evaluate import evaluate_files
from mnv2tl.finish import Outcome, finish
from mnv2tl.fit import predict_logits
from mnv2tl.state import StateStore
from mnv2tl_export.benchmark_child import _Runtime
from mnv2tl_export.child import Message
from mnv2tl_export.evaluate import evaluate_model
from mnv2tl_export.model import Model

if TYPE_CHECKING:
    from mnv2tl.checkpoint import Run


def _ask_for_too_much(pixels: NDArray[Any]) -> NDArray[Any]:
    return np.zeros((10**8, *pixels.shape))


def _maker(run: Run) -> ViewMaker:
    return ViewMaker(
        root=run.manifest.root, image_px=96, augment=PRESETS["none"], seed=0, max_pixels=4096
    )


def test_row_42_validation_features_that_do_not_fit_name_a_smaller_network(
    trained_run: Run,
) -> None:
    """Sixty-four images at once is no setting."""

    class Source:
        def read(self, entries: Any, view: int) -> NDArray[np.float32]:
            return np.broadcast_to(np.float32(0), (len(entries), 10**5, 10**5, 10**3))

    source: Any = Source()
    with pytest.raises(MachineError) as caught:
        predict_logits(None, source, trained_run.manifest.entries[:3])

    assert caught.value.line() == (
        "error[E505 out-of-memory] 64 validation images at once did not fit into memory. "
        "Fix: try a smaller --image-px or --alpha, or fewer --trainable-layers"
    )


def test_row_42_an_evaluation_that_does_not_fit_names_the_lighter_road(trained_run: Run) -> None:
    """A run has no batch size to lower, but its ONNX file takes less."""
    with pytest.raises(MachineError) as caught:
        evaluate_files(
            _ask_for_too_much,
            _maker(trained_run),
            trained_run.manifest.entries[:3],
            class_names=trained_run.class_names,
            temperature=1.0,
        )

    assert caught.value.line() == (
        "error[E505 out-of-memory] 16 images at once did not fit into memory. "
        "Fix: close other programs, or export the run and evaluate its ONNX file"
    )


def test_row_42_a_self_check_that_does_not_fit_can_be_made_later(
    trained_run: Run, tmp_path: Path
) -> None:
    """The epochs are saved; a resumed training begins with it."""
    run = Path(shutil.copytree(trained_run.folder, tmp_path / "run"))
    commit = StateStore(run / "state").load()
    assert commit is not None
    settings = {key: trained_run.info["config"][key] for key in ("alpha", "image_px", "scaling")}
    config = TrainConfig(data=trained_run.manifest.root, out=run, weights="none", **settings)
    networks: Future[Any] = Future()
    networks.set_exception(MemoryError())
    outcome = Outcome(
        commit=commit,
        arrays=trained_run.read_arrays(),
        logits=np.zeros((trained_run.info["val_images"], 3), np.float32),
        trained=["Conv_1"],
        trunk_runtime="none",
        seconds={},
        began=time.perf_counter(),
        networks=networks,
    )

    with pytest.raises(MachineError) as caught:
        finish(config, trained_run.manifest, _maker(trained_run), outcome)

    assert caught.value.line() == (
        "error[E505 out-of-memory] the network of the self-check did not fit into memory. "
        "Fix: close other programs, and go on with --resume: all epochs are saved"
    )
    assert StateStore(run / "state").load() == commit


class _Greedy(Model):
    def _run(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        return _ask_for_too_much(pixels)


def test_row_42_an_exported_model_that_does_not_fit_is_told(
    trained_run: Run, tmp_path: Path
) -> None:
    """As onnxruntime and TensorFlow say it, each in its own way."""
    metadata: Any = dataclasses.make_dataclass("Metadata", ("class_names", "image_px"))(
        trained_run.class_names, 96
    )
    model = _Greedy(tmp_path / "model.onnx", metadata, batch_size=16)

    with pytest.raises(MachineError, match=r"E505 .*16 pictures at once .*close other programs"):
        evaluate_model(model, trained_run.manifest.entries[:3], trained_run.manifest.root)


@pytest.mark.parametrize(
    ("count", "fix"),
    [(64, "try --batch 32"), (1, "close other programs, or measure without --run")],
)
def test_row_42_a_timed_batch_that_does_not_fit_names_a_smaller_one(count: int, fix: str) -> None:
    """One picture at a time is the least."""
    runtime = _Runtime()
    runtime._predict = _ask_for_too_much
    question = Message(values={"calls": 1}, arrays={"pixels": np.zeros((count, 9, 9, 3), np.uint8)})

    with pytest.raises(MachineError) as timed:
        runtime.time(question)
    with pytest.raises(MachineError, match=f"{count} pictures at once did not fit"):
        runtime.predict(question)

    assert timed.value.message == f"batch {count} did not fit into memory"
    assert timed.value.fix == fix
