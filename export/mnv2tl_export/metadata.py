"""What travels inside of an exported file besides its graph, as texts under `mnv2tl.` keys.

NumPy only: `mnv2tl predict` reads it without the package onnx.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from mnv2tl.errors import ArtifactError

SCHEMA = 1
"""Raised when a reader of the former version could not use the file."""

_PREFIX = "mnv2tl."


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """How to feed an exported model, how to read its answers, and where it comes from."""

    class_names: tuple[str, ...]
    """Names of the classes, in the order of the probabilities."""
    image_px: int
    """Side that pictures are resized to, in pixels; inside the graph if they come otherwise."""
    preprocessing: Mapping[str, Any]
    """The rule by which files become pixels, and the scaling."""
    temperature: float | None
    """What the logits are divided by in the graph; None if it was left out."""
    run: Mapping[str, Any]
    """`run_sha256`, `checkpoint_sha256`, `manifest_sha256`, `backend`, `split`."""
    base_weights: Mapping[str, Any]
    """`name`, `sha256` and `licence` of the weights that the training started from."""
    val_accuracy: Mapping[str, Any]
    """`accuracy`, `interval` (95 %) and `images` of the validation split, from the training."""
    versions: Mapping[str, str]
    """Versions of what made the file."""
    selftest: Mapping[str, Any]
    """`png`, a picture in base64, `probabilities`, what is answered to it, and `tolerance`."""
    artifact: Mapping[str, str]
    """`format`, such as `onnx`, and `via`, what wrote the graph: native, tf2onnx or tensorflow."""

    def to_texts(self) -> dict[str, str]:
        """Return one JSON text in ASCII per key, equal for equal values."""
        values = {
            "class_names": self.class_names,
            "image_px": self.image_px,
            "preprocessing": self.preprocessing,
            "temperature": self.temperature,
            "run": self.run,
            "base_weights": self.base_weights,
            "val_accuracy": self.val_accuracy,
            "versions": self.versions,
            "selftest": self.selftest,
            "artifact": self.artifact,
            "schema": SCHEMA,
        }
        return {
            _PREFIX + name: json.dumps(value, sort_keys=True, allow_nan=False)
            for name, value in values.items()
        }

    @classmethod
    def from_texts(cls, texts: Mapping[str, str]) -> Self:
        """Return the metadata that `to_texts` gave; other keys are ignored.

        Raises:
            ArtifactError: There is none of ours (E411), it is of a newer schema (E404), or it is
                damaged (E412).
        """
        if _PREFIX + "schema" not in texts:
            fix = "use a file that mnv2tl export wrote"
            raise ArtifactError("E411", "the file has no metadata of mnv2tl", fix=fix)
        try:
            values = {
                name.removeprefix(_PREFIX): json.loads(text)
                for name, text in texts.items()
                if name.startswith(_PREFIX)
            }
            schema = int(values["schema"])
            if schema > SCHEMA:
                message = f"metadata schema {schema}, this version reads <= {SCHEMA}"
                raise ArtifactError("E404", message, fix="update mnv2tl")
            metadata = cls(
                class_names=tuple(values["class_names"]),
                **{name: values[name] for name in cls.__slots__ if name != "class_names"},
            )
            _check(metadata)
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            message = f"damaged metadata ({type(error).__name__}: {str(error)!a})"
            raise ArtifactError("E412", message) from error
        return metadata


def _check(metadata: Metadata) -> None:
    names = metadata.class_names
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError("class_names must be texts")
    if type(metadata.image_px) is not int or not 1 <= metadata.image_px <= 4096:
        raise ValueError("image_px must be from 1 to 4096")
    probabilities = metadata.selftest["probabilities"]
    if len(probabilities) != len(names) or not all(type(each) is float for each in probabilities):
        raise ValueError("selftest must have a probability per class")
    if not 0 < float(metadata.selftest["tolerance"]) <= 1:
        raise ValueError("the self-test's tolerance must be from 0 to 1")
    if not all(isinstance(metadata.artifact[key], str) for key in ("format", "via")):
        raise ValueError("artifact must name format and via")
