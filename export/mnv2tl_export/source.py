"""A finished run as the export sees it: its weights, its images, and Keras to compare with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnv2tl import store
from mnv2tl.backend import list_versions
from mnv2tl.checkpoint import Run
from mnv2tl.data import images
from mnv2tl.data.entries import Entry
from mnv2tl.data.manifest import Manifest
from mnv2tl.data.split import Split
from mnv2tl.errors import DataError
from mnv2tl.evaluate import open_model
from mnv2tl.metrics import softmax
from mnv2tl_export import golden
from mnv2tl_export.gate import Ask, Pictures
from mnv2tl_export.metadata import Metadata

Arrays = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A finished run, read and opened in Keras."""

    run: Run
    """Where it comes from."""
    arrays: Arrays
    """All weights of its best epoch."""
    manifest: Manifest
    """Its images."""
    root: Path
    """Folder that their paths start from."""
    reference: Ask
    """Keras: from pixels (n, px, px, 3) to logits (n, classes)."""
    temperature: float | None
    """What exported graphs divide logits by; None to leave it out."""

    @property
    def config(self) -> Mapping[str, Any]:
        """The settings of the training."""
        config: Mapping[str, Any] = self.run.info["config"]
        return config

    @property
    def network(self) -> dict[str, Any]:
        """What a writer of graphs needs to know: `alpha`, `image_px`, `scaling`, `temperature`."""
        keys = ("alpha", "image_px", "scaling")
        return {key: self.config[key] for key in keys} | {"temperature": self.temperature}

    def pictures(self, split: Split, *, at_most: int | None = None) -> Pictures:
        """Return the images of a split.

        Args:
            split: train, val or test.
            at_most: Take so many, as evenly from the classes as there are images, else all.

        Raises:
            DataError: There is none (E301).
        """
        entries = self.manifest.of_split(split)
        if not entries:
            raise DataError("E301", f"the run has no image in the split {split}", path=self.root)
        return Pictures(
            entries=entries if at_most is None else _spread(entries, at_most),
            root=self.root,
            image_px=self.config["image_px"],
            max_pixels=self.config["scan"]["max_pixels"],
        )

    def describe(self) -> dict[str, Any]:
        """Return the hashes that name this run."""
        return {
            "run_sha256": store.sha256_file(self.run.folder / "run.json"),
            "checkpoint_sha256": self.run.info["files"]["best.keras"],
            "manifest_sha256": self.manifest.sha256,
            "backend": self.run.info["backend"],
            "split": self.manifest.split_rule,
        }

    def make_metadata(
        self,
        *,
        format_name: str,
        via: str,
        tolerance: float = golden.TOLERANCE,
        answer: NDArray[np.floating[Any]] | None = None,
    ) -> Metadata:
        """Return what travels in an artifact.

        Args:
            format_name: Such as `onnx`.
            via: What wrote the graph.
            tolerance: Of its self-test.
            answer: What the self-test expects, shape (classes,); None for the answer of Keras.
        """
        info, px = self.run.info, self.config["image_px"]
        if answer is None:
            pixels = images.resize(golden.draw_picture(), px)[np.newaxis]
            answer = softmax(self.reference(pixels), temperature=self.temperature or 1.0)[0]
        return Metadata(
            class_names=self.run.class_names,
            image_px=px,
            preprocessing=images.PREPROCESSING | {"scaling": self.config["scaling"]},
            temperature=self.temperature,
            run=self.describe(),
            base_weights=info["weights"],
            val_accuracy={
                "accuracy": info["val_accuracy"],
                "interval": info["val_accuracy_interval"],
                "images": info["val_images"],
            },
            versions=list_versions(),
            selftest=golden.describe(answer.tolist(), tolerance=tolerance),
            artifact={"format": format_name, "via": via},
        )


def open_source(run: Run, *, data: Path | None = None, with_temperature: bool = True) -> Source:
    """Read a run's best checkpoint and open it in Keras, on the backend that Keras was given.

    Args:
        run: A finished run.
        data: Folder of its images, if it moved since the training.
        with_temperature: Let exported graphs divide logits by the run's temperature.

    Raises:
        ArtifactError: The run is refused.
    """
    arrays = run.read_arrays()
    config, manifest = run.info["config"], run.manifest
    reference = open_model(
        arrays,
        alpha=config["alpha"],
        image_px=config["image_px"],
        scaling=config["scaling"],
        classes=len(run.class_names),
    )
    return Source(
        run=run,
        arrays=arrays,
        manifest=manifest,
        root=data or manifest.root,
        reference=reference,
        temperature=float(run.info["temperature"]) if with_temperature else None,
    )


def _spread(entries: Sequence[Entry], count: int) -> tuple[Entry, ...]:
    """Return so many images, one of each class in turn, in the order of their hashes."""
    by_class: dict[int, list[Entry]] = {}
    for entry in sorted(entries, key=lambda entry: entry.sha256):
        by_class.setdefault(entry.label, []).append(entry)
    ranked = [(rank, each) for group in by_class.values() for rank, each in enumerate(group)]
    ranked.sort(key=lambda pair: (pair[0], pair[1].sha256))
    return tuple(entry for _, entry in ranked[:count])
