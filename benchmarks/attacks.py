"""ONNX files that name another file, by every way known: who reads it?

Numbers of a model may lie in a file beside it ("external data"), and the model names that file.
Each attack hides such a name at one place of the model, and points it out of the model's folder in
one way. A leak is an answer that holds the other file's numbers.

- by path: `mnv2tl predict --classes` opens such a file so, against `onnxruntime` given the path
- from bytes: the session that mnv2tl opens, without the judge before it, against `onnxruntime`
  given the bytes, both in the model's own folder

    python -m benchmarks.attacks

The exit status is 1 if anything leaks from mnv2tl.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from benchmarks.parts import record
from mnv2tl.errors import Mnv2tlError
from mnv2tl_export.foreign import ForeignClassifier
from mnv2tl_export.runtime import RUNTIME_ERRORS, open_session

SECRET = np.array([1234.5, -678.25, 91011.75], np.float32)
"""What lies in the other file; the model adds it to the mean of a black picture."""
_PX = 32
_BLACK = np.zeros((1, _PX, _PX, 3), np.uint8)

Answer = Callable[[Path], NDArray[Any]]


def write_ways(folder: Path) -> dict[str, str]:
    """Write the other file and what leads to it; return way -> what a model in `model/` says."""
    secret, model = folder / "secret", folder / "model"
    secret.mkdir()
    model.mkdir()
    file = secret / "numbers.bin"
    file.write_bytes(SECRET.tobytes())
    (model / "link.bin").symlink_to(file)
    (model / "hard.bin").hardlink_to(file)
    (model / "folder").symlink_to(secret)
    return {
        "..": "../secret/numbers.bin",
        "absolute": str(file),
        "symbolic link": "link.bin",
        "hard link": "hard.bin",
        "linked folder": "folder/numbers.bin",
    }


def make_models(location: str) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Yield (place, model): pixels to their mean plus the numbers at a location.

    Args:
        location: What the model says of where its numbers lie.
    """
    tensor = onnx.TensorProto(
        name="numbers", data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL
    )
    tensor.external_data.add(key="location", value=location)
    indices = helper.make_tensor("indices", TensorProto.INT64, [3], [0, 1, 2])
    sparse = helper.make_sparse_tensor(tensor, indices, [3])
    yield "initializer", _make_model(initializer=[tensor])
    yield "sparse initializer", _make_model(sparse_initializer=[sparse])
    constant = helper.make_node("Constant", [], ["numbers"], value=tensor)
    yield "attribute", _make_model(constant)
    constant = helper.make_node("Constant", [], ["numbers"], sparse_value=sparse)
    yield "sparse attribute", _make_model(constant)


def _make_model(*nodes: onnx.NodeProto, **parts: Any) -> onnx.ModelProto:
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2])
    nodes = (
        *nodes,
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["mean"], keepdims=0),
        helper.make_node("Add", ["mean", "numbers"], ["answer"]),
    )
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", _PX, _PX, 3])
    answer = helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["n", 3])
    initializer = [axes, *parts.pop("initializer", [])]
    graph = helper.make_graph(nodes, "attack", [image], [answer], initializer, **parts)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8, producer_name="attack"
    )


def ask_ours(path: Path) -> NDArray[Any]:
    """Answer as `mnv2tl predict --classes` does."""
    with ForeignClassifier(path, ("a", "b", "c")) as classifier:
        return classifier(list(_BLACK))


def ask_our_session(path: Path) -> NDArray[Any]:
    """Answer from the bytes, by the session that mnv2tl opens, without its judge."""
    return _run(open_session(path.read_bytes()))


def ask_onnxruntime(path: Path) -> NDArray[Any]:
    """Answer by path, as most programs do."""
    return _run(onnxruntime.InferenceSession(os.fspath(path), _quiet()))


def ask_onnxruntime_bytes(path: Path) -> NDArray[Any]:
    """Answer from the bytes."""
    return _run(onnxruntime.InferenceSession(path.read_bytes(), _quiet()))


def _quiet() -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return options


def _run(session: Any) -> NDArray[Any]:
    answer: NDArray[Any] = session.run(None, {"image": _BLACK})[0]
    return answer


ROADS: dict[str, Answer] = {
    "mnv2tl, by path": ask_ours,
    "mnv2tl's session, from bytes": ask_our_session,
    "onnxruntime, by path": ask_onnxruntime,
    "onnxruntime, from bytes": ask_onnxruntime_bytes,
}


def leaks(answer: Answer, path: Path) -> bool:
    """Tell whether an answer holds the other file's numbers; a refusal does not."""
    try:
        with contextlib.chdir(path.parent), contextlib.redirect_stdout(None):
            found = answer(path)
    except Mnv2tlError:
        return False
    except RUNTIME_ERRORS:
        return False
    return bool(np.isin(SECRET, found).any())


def attack() -> dict[str, dict[str, Any]]:
    """Return road -> how many attacks were tried, and which of them leaked."""
    found: dict[str, dict[str, Any]] = {name: {"attacks": 0, "leaks": []} for name in ROADS}
    with tempfile.TemporaryDirectory() as made:
        for way, location in write_ways(Path(made)).items():
            for place, model in make_models(location):
                path = Path(made) / "model" / "model.onnx"
                path.write_bytes(model.SerializeToString())
                for name, answer in ROADS.items():
                    found[name]["attacks"] += 1
                    if leaks(answer, path):
                        found[name]["leaks"].append(f"{place}, {way}")
    return found


@click.command(help=record.help_text(__doc__))
@click.option("--out", type=click.Path(path_type=Path), help="JSON file.")
def main(out: Path | None) -> None:
    """Try every attack on every road, and write what leaked."""
    roads = attack()
    record.write(out or record.RESULTS / "attacks.json", {"roads": roads})
    for name, row in roads.items():
        click.echo(f"{name}: {len(row['leaks'])} of {row['attacks']} {row['leaks'] or ''}")
    if any(row["leaks"] for name, row in roads.items() if name.startswith("mnv2tl")):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
