"""The process in which TensorFlow runs for an export: `python -m mnv2tl_export.saved_model_child`.

Keras may run on JAX in the process that asks, and no process can have it on both. KERAS_BACKEND
must be `tensorflow` for `write` and `convert`; what only loads a SavedModel does without Keras.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from mnv2tl import store
from mnv2tl.errors import ArtifactError, MachineError
from mnv2tl_export.child import Message, serve


class Loaded:
    """A SavedModel of ours, loaded as anybody would: by `tf.saved_model.load`.

    Args:
        folder: Holds saved_model.pb.
    """

    def __init__(self, folder: Path) -> None:
        self._model = tf.saved_model.load(str(folder))
        self._signature = self._model.signatures["serving_default"]

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the probabilities for pixels (n, h, w, 3), by the serving signature."""
        return self._signature(image=tf.constant(pixels))["probabilities"].numpy()  # type: ignore[no-any-return]

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the logits for pixels (n, h, w, 3)."""
        return self._model.logits(tf.constant(pixels)).numpy()  # type: ignore[no-any-return]

    def resize(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return pixels (n, h, w, 3) as the graph resizes them, (n, px, px, 3)."""
        return self._model.resize(tf.constant(pixels)).numpy()  # type: ignore[no-any-return]


def load(folder: Path) -> Loaded:
    """Open a SavedModel of ours.

    Raises:
        ArtifactError: TensorFlow cannot load it (E412).
    """
    try:
        return Loaded(folder)
    except (OSError, ValueError, KeyError, AttributeError, tf.errors.OpError) as error:
        message = f"TensorFlow cannot load it: {_first_line(error)}"
        raise ArtifactError("E412", message, path=folder) from error


class _Answers:
    """What is asked, and the model that was opened last."""

    def __init__(self) -> None:
        self._loaded: Loaded | None = None

    def open(self, question: Message) -> Message:
        self._loaded = load(Path(question.values["folder"]))
        return Message()

    def predict(self, question: Message) -> Message:
        return self._ask(question, Loaded.predict)

    def logits(self, question: Message) -> Message:
        return self._ask(question, Loaded.logits)

    def resize(self, question: Message) -> Message:
        return self._ask(question, Loaded.resize)

    def write(self, question: Message) -> Message:
        folder, values = Path(question.values["folder"]), question.values
        from mnv2tl_export import saved_model_writer

        core = saved_model_writer.make_core(question.arrays, **values["network"])
        px, temperature = values["network"]["image_px"], values["temperature"]
        try:
            saved_model_writer.write(folder, core, image_px=px, temperature=temperature)
        except tf.errors.ResourceExhaustedError as error:  # what it calls a full disk, too
            raise MachineError("E501", _first_line(error), path=folder) from error
        except tf.errors.OpError as error:
            raise MachineError("E502", _first_line(error), path=folder) from error
        except OSError as error:
            raise store.machine_error(error, folder) from error
        return Message()

    def convert(self, question: Message) -> Message:
        from mnv2tl_export import saved_model_writer

        core = saved_model_writer.make_core(question.arrays, **question.values["network"])
        return Message(arrays={"onnx": saved_model_writer.convert(core)})

    def _ask(self, question: Message, method: Callable[[Loaded, Any], Any]) -> Message:
        if self._loaded is None:
            raise RuntimeError("no SavedModel was opened")
        try:
            return Message(arrays={"answer": method(self._loaded, question.arrays["pixels"])})
        except tf.errors.ResourceExhaustedError as error:
            fix = "ask about fewer or smaller pictures at once"
            raise MachineError("E505", _first_line(error), fix=fix) from error
        except tf.errors.OpError as error:
            raise ArtifactError(
                "E412", f"TensorFlow cannot run it: {_first_line(error)}"
            ) from error


def _first_line(error: Exception) -> str:
    """Return the start of an error's text, printable."""
    return ascii(str(error).partition("\n")[0][:300])[1:-1]


def main() -> None:
    """Serve until stdin is closed."""
    answers = _Answers()
    names = ("open", "predict", "logits", "resize", "write", "convert")
    serve({name: getattr(answers, name) for name in names})


if __name__ == "__main__":
    main()
