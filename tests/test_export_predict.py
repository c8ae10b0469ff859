from __future__ import annotations

import csv
import io
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from mnv2tl import store
from mnv2tl.checkpoint import full_shapes
from mnv2tl.cli import main
from mnv2tl.data import images
from mnv2tl.errors import ArtifactError, MachineError, ResultError
from mnv2tl.parallel import count_workers
from mnv2tl_export import golden, onnx_file
from mnv2tl_export.classifier import Classifier
from mnv2tl_export.metadata import Metadata
from mnv2tl_export.onnx_file import read_onnx
from mnv2tl_export.onnx_model import write_model
from mnv2tl_export.predict import list_files, predict_files
from mnv2tl_export.protobuf import read_fields

ROOT = Path(__file__).resolve().parent.parent
PX = 96
CLASS_NAMES = ("disc", "=square", "stripes")

Change = Callable[[Any], object]


def _draw_arrays() -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(4)
    arrays = {}
    for key, shape in full_shapes(alpha=0.35, image_px=PX, classes=len(CLASS_NAMES)).items():
        if key.endswith("/kernel"):
            fan_in = math.prod(shape[:2]) if "depthwise" in key else math.prod(shape[:-1])
            array = rng.normal(0.0, math.sqrt(2 / fan_in), shape)
        elif key.endswith(("/gamma", "/moving_variance")):
            array = np.ones(shape)
        else:
            array = np.zeros(shape)
        arrays[key] = array.astype(np.float32)
    return arrays


def _write(selftest: dict[str, Any]) -> bytes:
    metadata = Metadata(
        class_names=CLASS_NAMES,
        image_px=PX,
        preprocessing=images.PREPROCESSING,
        temperature=1.5,
        run={},
        base_weights={},
        val_accuracy={},
        versions={},
        selftest=selftest,
        artifact={"format": "onnx", "via": "native"},
    )
    return write_model(
        _draw_arrays(),
        alpha=0.35,
        image_px=PX,
        scaling="symmetric",
        temperature=1.5,
        metadata=metadata.to_texts(),
    )


@pytest.fixture(scope="module")
def _content() -> bytes:
    """Return the bytes of a model with drawn weights, whose self-test holds."""
    session = onnxruntime.InferenceSession(_write(golden.describe([0.0, 0.0, 1.0])))
    pixels = images.resize(golden.draw_picture(), PX)[np.newaxis]
    return _write(golden.describe(session.run(None, {"image": pixels})[0][0].tolist()))


@pytest.fixture
def model(_content: bytes, tmp_path: Path) -> Path:
    """Return the path of the model, alone in its folder."""
    path = tmp_path / "deployed" / "model.onnx"
    store.write_bytes(path, _content)
    return path


def _call(*words: object, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], input=stdin)


def _lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_classifier_takes_files_and_pixels(model: Path, tiny_folder: Path) -> None:
    """Both give the same rows, of pictures in any size, in any number."""
    files = sorted(tiny_folder.glob("*/0*.png"))
    classify = Classifier(model, batch_size=4)

    probabilities = classify(files)

    assert classify.class_names == CLASS_NAMES
    assert probabilities.shape == (len(files), 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose(
        classify([images.read(file) for file in files]), probabilities, atol=1e-6
    )
    np.testing.assert_allclose(classify([str(files[3])])[0], probabilities[3], atol=1e-6)
    assert classify([]).shape == (0, 3)


@pytest.mark.parametrize("threads", [1, None])
def test_many_pictures_get_the_answers_that_few_get(
    model: Path, tiny_folder: Path, tmp_path: Path, threads: int | None
) -> None:
    """Each is computed in a thread of its own then; order and what cannot be read stay."""
    files = [*sorted(tiny_folder.glob("*/*.png")), tmp_path / "missing.png"]
    many = (files * (1 + 200 // len(files)))[:200]
    classifier = Classifier(model, threads=threads)

    answers = list(predict_files(classifier, many))

    few = dict(zip(files, predict_files(classifier, files), strict=True))
    assert len(files) < 64
    assert [answer.path for answer in answers] == many
    for answer in answers:
        expected = few[answer.path]
        assert (answer.error is None) == (expected.error is None) == (answer.path in files[:-1])
        assert answer.label == expected.label
        assert answer.probability == pytest.approx(expected.probability, abs=1e-6)


def test_many_pictures_stop_at_what_one_of_them_meets(model: Path) -> None:
    """What a thread raises comes out at its turn, and nothing is asked for long after it."""
    pixels = np.zeros((96, 96, 3), np.uint8)
    asked = []

    def load(number: int) -> Any:
        asked.append(number)
        if number == 70:
            raise OSError("gone")
        return pixels

    rows = Classifier(model).answer_all(load, range(1000))
    answered = [next(rows) for _ in range(70)]

    with pytest.raises(OSError, match="gone"):
        next(rows)
    assert {row.shape for row in answered} == {(3,)}
    assert max(asked) <= 70 + 4 * count_workers()


def test_classifier_refuses_pixels_of_another_type(model: Path) -> None:
    """A float picture would be cut off silently."""
    with pytest.raises(ValueError, match="pixels must be uint8"):
        Classifier(model)([np.zeros((8, 8, 3))])  # type: ignore[list-item]


def test_classifier_names_the_providers_there_are(model: Path) -> None:
    """Onnxruntime itself would fall back to the CPU with a warning."""
    with pytest.raises(MachineError, match="CPUExecutionProvider"):
        Classifier(model, providers=("NoSuchProvider",))


def test_predict_prints_one_object_a_line(model: Path, tiny_folder: Path) -> None:
    """A folder gives its pictures in order; the top classes fall in probability."""
    result = _call("predict", model, tiny_folder, "--json", "--top", 2, "--batch", 5)

    assert result.exit_code == 0, result.output
    lines = _lines(result)
    expected = sorted(str(file) for file in tiny_folder.glob("*/*.png"))
    assert [line["path"] for line in lines] == expected
    for line in lines:
        (first, second) = line["top"]
        assert first == [line["label"], line["probability"]]
        assert first[1] >= second[1]
        assert line["label"] in CLASS_NAMES


def test_predict_shows_text(model: Path, tiny_folder: Path) -> None:
    """One line for each picture, with its path, label and probabilities."""
    file = tiny_folder / "disc" / "00.png"

    result = _call("predict", model, file)

    assert result.stdout.count("\n") == 1
    for name in (str(file), *CLASS_NAMES):
        assert name in result.stdout


def test_predict_writes_csv_that_is_no_formula(model: Path, tiny_folder: Path) -> None:
    """A cell that a spreadsheet would compute is quoted; numbers stay numbers."""
    file = tiny_folder / "disc" / "00.png"

    result = _call("predict", model, file, tiny_folder / "missing.png", "--csv", "--top", 9)

    header, row, bad = csv.reader(io.StringIO(result.stdout))
    assert header[:5] == ["path", "label", "probability", "class_name_1", "probability_1"]
    assert len(header) == len(row) == len(bad) == 3 + 2 * 3 + 1
    assert row[0] == str(file)
    assert float(row[2]) == float(row[4])
    assert "'=square" in row
    assert bad[-1] == "the file is not there"


def test_predict_rejects_what_is_uncertain(model: Path, tiny_folder: Path) -> None:
    """No label below the wanted probability; the figures stay."""
    file = tiny_folder / "disc" / "00.png"

    (sure,) = _lines(_call("predict", model, file, "--json"))
    (line,) = _lines(_call("predict", model, file, "--json", "--reject-below", "1"))

    assert sure["label"] is not None
    assert line["label"] is None
    assert line["top"] == sure["top"]


def test_predict_goes_on_after_a_bad_picture(model: Path, tiny_folder: Path) -> None:
    """Each file has its line, in order, and the exit code tells that some failed."""
    bad = tiny_folder / "disc" / "00.png"
    bad.write_bytes(bad.read_bytes()[:500])
    (tiny_folder / "square" / "notes.txt").write_text("not a picture, and not named")
    (tiny_folder / "square" / ".hidden.png").write_bytes(b"x")
    missing, text = tiny_folder / "missing.png", tiny_folder / "square" / "notes.txt"

    result = _call("predict", model, tiny_folder, missing, text, "--json", "--batch", 7)

    assert result.exit_code == 3
    lines = _lines(result)
    assert len(lines) == 36 + 2
    reasons = {line["path"]: line["error"]["reason"] for line in lines if "error" in line}
    assert reasons == {str(bad): "truncated", str(missing): "vanished", str(text): "not-an-image"}
    assert sum(line["label"] is not None for line in lines) == 35
    assert result.stderr.count("error[E309 bad-image]") == 3
    assert "3 of 38 pictures could not be read" in result.stderr


@pytest.mark.parametrize("separator", [b"\n", b"\r\n", b"\0"])
def test_predict_reads_paths_from_stdin(model: Path, tiny_folder: Path, separator: bytes) -> None:
    """`find ... | mnv2tl predict MODEL.onnx -`, with -print0 too."""
    files = sorted(tiny_folder.glob("disc/*.png"))
    stdin = separator.join(os.fsencode(file) for file in files) + separator

    lines = _lines(_call("predict", model, "-", "--json", stdin=stdin))

    assert [line["path"] for line in lines] == [str(file) for file in files]


def test_a_dash_on_stdin_is_a_file() -> None:
    """Standard input is read once."""
    assert list_files(["a", "-"], stdin=io.BytesIO(b"b\n-\n")) == [Path("a"), Path("b"), Path("-")]


@pytest.mark.parametrize("suffix", ["bmp", "gif", "jpg", "png", "webp"])
def test_predict_takes_a_picture_from_stdin(
    model: Path, tiny_folder: Path, tmp_path: Path, suffix: str
) -> None:
    """`cat x.jpg | mnv2tl predict MODEL.onnx -` answers as for the file itself."""
    other, file = tiny_folder / "disc" / "00.png", tmp_path / f"x.{suffix}"
    Image.open(other).save(file)

    (line, second) = _lines(_call("predict", model, "-", other, "--json", stdin=file.read_bytes()))

    (expected,) = _lines(_call("predict", model, file, "--json"))
    assert line == expected | {"path": "-"}
    assert second["path"] == str(other)


def test_predict_names_stdin_when_it_is_bad(
    model: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture that is cut off, too large or of another format is one answer with its reason."""
    content = (tiny_folder / "disc" / "00.png").read_bytes()

    def reason(stdin: bytes) -> str:
        result = _call("predict", model, "-", "--json", stdin=stdin)
        assert result.exit_code == 3
        (line,) = _lines(result)
        assert line["path"] == "-"
        return str(line["error"]["reason"])

    assert reason(content[:500]) == "truncated"
    assert reason(b"II*\0" + content) == "format-not-supported"
    monkeypatch.setattr(images, "MAX_FILE_BYTES", len(content) - 1)
    assert reason(content) == "too-large"


@pytest.mark.parametrize("name", [b"BMW/1.jpg", b"patternsWEBP.png"])
def test_paths_on_stdin_may_begin_like_a_picture(name: bytes) -> None:
    """BMP and WebP are told by more than their letters."""
    for separator in (b"\n", b"\0"):
        stdin = io.BytesIO(separator.join([name, name]) + separator)

        assert list_files(["-"], stdin=stdin) == [Path(os.fsdecode(name))] * 2


def test_row_17_predict_takes_any_name(model: Path, tiny_folder: Path, tmp_path: Path) -> None:
    """Bytes that are not UTF-8, line breaks and markup reach no sink unescaped."""
    names = [b"caf\xe9.png", b"new\nline.png", b"<script>.png", b"=1+1.png", b"-x.png"]
    folder = tmp_path / "odd"
    folder.mkdir()
    content = (tiny_folder / "disc" / "00.png").read_bytes()
    for name in names:
        (folder / os.fsdecode(name)).write_bytes(content)

    for form in ((), ("--json",), ("--csv",)):
        result = _call("predict", model, folder, *form)

        assert result.exit_code == 0, result.output
    lines = _lines(_call("predict", model, folder, "--json"))
    assert sorted(os.fsencode(Path(line["path"]).name) for line in lines) == sorted(names)
    assert _call("predict", model, folder).stdout.count("\n") == len(names)


def test_predict_needs_a_picture(model: Path, tmp_path: Path) -> None:
    """An empty folder is an error, not an empty answer."""
    (tmp_path / "empty").mkdir()

    result = _call("predict", model, tmp_path / "empty")

    assert result.exit_code == 3
    assert "no picture was found" in result.stderr


def test_predict_refuses_two_forms_at_once(model: Path) -> None:
    """--json and --csv exclude each other."""
    assert _call("predict", model, "x.png", "--json", "--csv").exit_code == 2


def test_predict_imports_no_framework(model: Path, tiny_folder: Path) -> None:
    """Deployed are NumPy, Pillow, onnxruntime and click; nothing else of ours is asked for."""
    code = """
import json, sys
from mnv2tl.cli import main
try:
    main(["predict", sys.argv[1], sys.argv[2], "--json"])
except SystemExit as end:
    if end.code:
        raise
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})), file=sys.stderr)
"""
    file = tiny_folder / "disc" / "00.png"

    result = subprocess.run(
        [sys.executable, "-c", code, str(model), str(file)],
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'export'}"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result.stderr
    imported = set(json.loads(result.stderr.splitlines()[-1]))
    assert {"numpy", "PIL", "onnxruntime", "click"} <= imported
    banned = {"keras", "jax", "tensorflow", "onnx", "rich", "h5py", "platformdirs", "matplotlib"}
    assert not imported & banned


def test_selftest_passes_here(model: Path) -> None:
    """The picture that travels in the file is answered as it says, in both ways."""
    result = _call("selftest", model, "--json")

    assert result.exit_code == 0, result.output
    (found,) = _lines(result)
    assert found["passed"]
    assert max(found["resized_diff"], found["direct_diff"]) <= found["limit"]
    assert "passed" in _call("selftest", model).stdout


def test_selftest_fails_for_another_model(model: Path) -> None:
    """A weight that differs shows."""
    _edit(model, lambda proto: _change_bias(proto, 1.0))

    result = _call("selftest", model)

    assert result.exit_code == 6
    assert "error[E601 parity]" in result.stderr


def test_selftest_refuses_a_damaged_picture(model: Path) -> None:
    """What is no PNG is a damaged file, not a bug."""
    text = '{"png": "AAAA", "probabilities": [0, 0, 1]}'
    _edit(model, lambda proto: _set_text(proto, "mnv2tl.selftest", text))

    result = _call("selftest", model)

    assert result.exit_code == 4
    assert "error[E412 bad-model]" in result.stderr


def _edit(path: Path, change: Change) -> None:
    proto = onnx.load(path)
    change(proto)
    path.write_bytes(proto.SerializeToString())


def _set_text(proto: Any, key: str, text: str) -> None:
    next(each for each in proto.metadata_props if each.key == key).value = text


def _change_bias(proto: Any, by: float) -> None:
    tensor = next(each for each in proto.graph.initializer if each.name == "predictions/bias")
    bias = numpy_helper.to_array(tensor).copy()
    bias[0] += np.float32(by)
    tensor.CopyFrom(numpy_helper.from_array(bias, tensor.name))


def test_row_46_other_models_are_not_parsed(tmp_path: Path) -> None:
    """A folder, a Keras file, a pickle, an address and a missing file give the same refusal."""
    for name in ("model.keras", "model.h5", "model.pkl"):
        (tmp_path / name).write_bytes(b"\x80\x04x")
    models = [tmp_path, *tmp_path.iterdir(), "https://host/model.onnx", tmp_path / "missing.onnx"]
    for path in models:
        result = _call("predict", path, "x.png")

        assert result.exit_code == 4, result.output
        assert "error[E410 unsupported-model]" in result.stderr


@pytest.mark.parametrize("command", ["predict", "selftest"])
def test_what_is_no_model_is_told_what_to_give(model: Path, tmp_path: Path, command: str) -> None:
    """A run is to be exported, of a bundle a file is named: no circle of advice."""
    run, bundle = tmp_path / "a run", tmp_path / "bundle"
    for folder, name in ((run, "run.json"), (bundle, "bundle.json")):
        folder.mkdir()
        (folder / name).write_text("{}")
    (run / "best.keras").write_bytes(b"PK")
    more = ("a.png",) if command == "predict" else ()

    def ask(path: Path) -> str:
        result = _call(command, path, *more)
        assert result.exit_code == 4
        return result.stderr.partition(" Fix: ")[2].strip()

    assert (
        ask(run)
        == ask(run / "best.keras")
        == f'export the run first: mnv2tl export "{run}" --out BUNDLE'
    )
    assert ask(bundle) == f'give a file of the bundle: "{bundle / "saved_model"}"'
    for name in ("model-int8.onnx", "model.onnx"):
        (bundle / name).write_bytes(b"")
    assert ask(bundle) == f'give a file of the bundle: "{bundle / "model.onnx"}"'
    assert ask(tmp_path / "missing.onnx").startswith("use an .onnx file or saved_model")


def test_row_47_a_file_without_our_metadata_is_refused(model: Path) -> None:
    """Class names and preprocessing are not guessed."""
    _edit(model, lambda proto: proto.ClearField("metadata_props"))

    result = _call("predict", model, "x.png")

    assert result.exit_code == 4
    assert "error[E411 no-metadata]" in result.stderr


def _append_node(operator: str, **attributes: Any) -> Change:
    def change(proto: Any) -> None:
        proto.graph.node.append(helper.make_node(operator, ["image"], ["other"], **attributes))

    return change


def _foreign_domain(proto: Any) -> None:
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def _foreign_node(proto: Any) -> None:
    proto.graph.node[0].domain = "com.microsoft"


def _external(proto: Any) -> None:
    tensor = proto.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"


def _external_without_location(proto: Any) -> None:
    entry = proto.graph.initializer[0].external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"


def _sparse(proto: Any) -> None:
    proto.graph.sparse_initializer.add().values.name = "x"


def _function(proto: Any) -> None:
    proto.functions.add().name = "f"


def _training(proto: Any) -> None:
    proto.training_info.add()


def _other_input(proto: Any) -> None:
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT


def _second_input(proto: Any) -> None:
    proto.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, (1,)))


def _other_output(proto: Any) -> None:
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 7


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def test_row_48_a_field_number_beyond_32_bits_is_refused(model: Path) -> None:
    """Readers in C++ would take such a field for another, which nobody judged."""
    inner = helper.make_node("Loop", ["image"], ["probabilities"]).SerializeToString()
    hidden = _varint((1 << 32) | (1 << 3 | 2)) + _varint(len(inner)) + inner
    graph = _varint(7 << 3 | 2) + _varint(len(hidden)) + hidden
    model.write_bytes(model.read_bytes() + graph)

    result = _call("predict", model, "x.png", "--json")

    assert result.exit_code == 4, result.output
    assert "number of a field is too large" in result.stderr


def _sub_graph(proto: Any) -> None:
    graph = helper.make_graph([], "inner", [], [])
    proto.graph.node[0].attribute.append(helper.make_attribute("then_branch", graph))


def _loop(proto: Any) -> Any:
    return next(node for node in proto.graph.node if node.op_type == "Loop")


def _node(proto: Any, output: str) -> Any:
    return next(node for node in proto.graph.node if output in node.output)


def _endless_loop(proto: Any) -> None:
    _loop(proto).input[0] = "resize/all"


def _loop_without_count(proto: Any) -> None:
    _loop(proto).input[0] = ""


def _loop_that_counts_otherwise(proto: Any) -> None:
    _node(proto, "resize/runs").op_type = "Identity"


def _count_in_disguise(proto: Any) -> None:
    """A reader that takes a number of four bytes for a text sees a Sign here; C++ does not."""
    node = _node(proto, "resize/runs")
    node.op_type = "Identity"
    node.MergeFromString(bytes([4 << 3 | 5]) + b"Sign")


def _count_that_may_be_empty(proto: Any) -> None:
    _node(proto, "resize/runs").input[0] = "resize/excess"


def _count_per_side(proto: Any) -> None:
    axes = helper.make_attribute("axes", [0])
    _node(proto, "resize/difference").attribute.append(axes)


def _count_without_name(proto: Any) -> None:
    _node(proto, "resize/runs").output[0] = ""
    _loop(proto).input[0] = ""


def _second_count(proto: Any) -> None:
    node = helper.make_node("Identity", ["resize/all"], ["resize/runs"])
    proto.graph.node.append(node)


def _count_of_another_name(proto: Any) -> None:
    proto.graph.initializer.append(numpy_helper.from_array(np.array(9), _loop(proto).input[0]))


def _loop_in_a_loop(proto: Any) -> None:
    inner = onnx.NodeProto()
    inner.CopyFrom(_loop(proto))
    _loop(proto).attribute[0].g.node.append(inner)


def _operator_in_a_loop(proto: Any) -> None:
    _loop(proto).attribute[0].g.node.append(helper.make_node("If", ["x"], ["y"]))


def _domain_in_a_loop(proto: Any) -> None:
    _loop(proto).attribute[0].g.node[0].domain = "com.microsoft"


def _external_in_a_loop(proto: Any) -> None:
    body = _loop(proto).attribute[0].g
    body.initializer.append(TensorProto(data_location=TensorProto.EXTERNAL, name="x"))


def _graphs_of_a_loop(proto: Any) -> None:
    graph = helper.make_graph([], "inner", [], [])
    _loop(proto).attribute.append(helper.make_attribute("more", [graph]))


def _tensor_attribute(proto: Any) -> None:
    tensor = TensorProto(data_location=TensorProto.EXTERNAL, name="x")
    proto.graph.node[0].attribute.append(helper.make_attribute("value", tensor))


def _no_graph(proto: Any) -> None:
    proto.ClearField("graph")


def _wrong_shapes(proto: Any) -> None:
    tensor = next(each for each in proto.graph.initializer if each.name == "Conv1/weight")
    tensor.dims[0] += 1


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (_append_node("Loop"), "a loop that may run more than once"),
        (_endless_loop, "a loop that may run more than once"),
        (_loop_without_count, "a loop that may run more than once"),
        (_loop_that_counts_otherwise, "a loop that may run more than once"),
        (_count_in_disguise, "a loop that may run more than once"),
        (_count_that_may_be_empty, "a loop that may run more than once"),
        (_count_per_side, "a loop that may run more than once"),
        (_count_without_name, "a loop that may run more than once"),
        (_second_count, "two nodes give the same"),
        (_count_of_another_name, "a node gives what is there before"),
        (_loop_in_a_loop, "the operator 'Loop' is not allowed"),
        (_operator_in_a_loop, "the operator 'If' is not allowed"),
        (_domain_in_a_loop, "domain 'com.microsoft' is not allowed"),
        (_external_in_a_loop, "external data"),
        (_graphs_of_a_loop, "sub-graphs"),
        (_append_node("If"), "the operator 'If' is not allowed"),
        (_append_node("ConstantOfShape"), "the operator 'ConstantOfShape' is not allowed"),
        (_foreign_domain, "domain 'com.microsoft' is not allowed"),
        (_foreign_node, "domain 'com.microsoft' is not allowed"),
        (_external, "external data"),
        (_external_without_location, "external data"),
        (_tensor_attribute, "external data"),
        (_sparse, "sparse tensors"),
        (_function, "functions"),
        (_training, "training parts"),
        (_sub_graph, "sub-graphs"),
        (_no_graph, "no graph"),
        (_other_input, "expected one input, uint8"),
        (_second_input, "expected one input, uint8"),
        (_other_output, "one output, float32 (N, 3)"),
        (_wrong_shapes, "onnxruntime refuses it"),
    ],
)
def test_row_48_what_we_do_not_write_is_refused(model: Path, change: Change, text: str) -> None:
    """The reason is named, and the exit code is 4."""
    _edit(model, change)

    result = _call("predict", model, "x.png", "--json")

    assert result.exit_code == 4, result.output
    assert "error[E412 bad-model]" in result.stderr
    assert text in result.stderr
    assert [line["code"] for line in _lines(result)] == ["E412"]


def test_numbers_of_fixed_size_are_no_texts() -> None:
    """Readers in C++ pass over them where they expect a text."""
    text, four, eight = b"\x22\x04Sign", b"\x25Sign", b"\x21Identity"

    ((number, value),) = read_fields(memoryview(four + text + eight))

    assert number == 4
    assert isinstance(value, memoryview)
    assert bytes(value) == b"Sign"


def test_row_48_size_is_limited(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file above the limit is not read to its end."""
    monkeypatch.setattr(onnx_file, "MAX_BYTES", 1000)

    with pytest.raises(ArtifactError, match="larger than 1,000 bytes"):
        read_onnx(model)


def test_row_48_truncated_files_are_refused(model: Path) -> None:
    """Cut anywhere, the file ends as one line and exit 4."""
    content = model.read_bytes()
    for size in (0, 1, 5, 100, len(content) // 2, len(content) - 1):
        model.write_bytes(content[:size])

        with pytest.raises(ArtifactError) as caught:
            Classifier(model)

        assert caught.value.code in ("E411", "E412")


def test_damaged_files_raise_errors_of_ours_only(model: Path, tmp_path: Path) -> None:
    """Bytes changed at random in the parts that are no weights never end in another exception."""
    content = bytearray(model.read_bytes())
    rng = np.random.default_rng(6)
    path = tmp_path / "damaged.onnx"
    codes = set()
    for _ in range(150):
        damaged = bytearray(content)
        for place in rng.integers(0, 30_000, 3):
            damaged[-int(place) - 1 if rng.random() < 0.7 else int(place)] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read_onnx(path)
        except ArtifactError as error:
            codes.add(error.code)

    assert "E412" in codes
    assert codes <= {"E404", "E411", "E412"}


def test_row_49_the_file_must_be_the_sealed_one(model: Path) -> None:
    """bundle.json beside the file names its hash; both begin with twelve digits in the message."""
    digest = store.sha256_file(model)
    seal = model.with_name("bundle.json")
    seal.write_text(json.dumps({"files": {"model.onnx": {"sha256": digest}}}))
    read_onnx(model)
    _edit(model, lambda proto: _change_bias(proto, 1e-6))

    result = _call("predict", model, "x.png")

    assert result.exit_code == 4
    assert "error[E413 hash-differs]" in result.stderr
    assert digest[:12] in result.stderr
    for text in ("{}", "[", '{"files": {"model.onnx": 3}}'):
        seal.write_text(text)
        with pytest.raises(ArtifactError, match="does not name 'model\\.onnx'"):
            read_onnx(model)


def test_newer_metadata_are_refused(model: Path) -> None:
    """The message names both versions of the schema."""
    _edit(model, lambda proto: _set_text(proto, "mnv2tl.schema", "2"))

    with pytest.raises(ArtifactError, match="schema 2, this version reads <= 1") as caught:
        read_onnx(model)
    assert caught.value.code == "E404"


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("class_names", "[]"),
        ("class_names", "[1, 2, 3]"),
        ("class_names", "nonsense"),
        ("class_names", "[" * 100_000),
        ("image_px", "100000"),
        ("image_px", '"96"'),
        ("selftest", "{}"),
    ],
)
def test_damaged_metadata_are_refused(model: Path, key: str, text: str) -> None:
    """Each value is checked before it is used."""
    _edit(model, lambda proto: _set_text(proto, f"mnv2tl.{key}", text))

    with pytest.raises(ArtifactError, match="damaged metadata") as caught:
        read_onnx(model)
    assert caught.value.code == "E412"


def test_an_answer_that_is_not_finite_is_an_error(model: Path, tiny_folder: Path) -> None:
    """A NaN is never printed as a probability."""
    _edit(model, lambda proto: _change_bias(proto, math.nan))

    with pytest.raises(ResultError) as caught:
        Classifier(model)([tiny_folder / "disc" / "00.png"])

    assert caught.value.code == "E602"


def test_row_42_pictures_that_do_not_fit_name_a_smaller_batch(model: Path) -> None:
    """The model is not at fault, though onnxruntime raises what it raises for a bad one."""

    class Session:
        def run(self, *_: object) -> None:
            raise RuntimeError("BFCArena: Failed to allocate memory for requested buffer of size 9")

    classifier = Classifier(model)
    classifier._session = Session()

    with pytest.raises(MachineError) as caught:
        classifier.predict_pixels(np.zeros((16, 96, 96, 3), np.uint8))

    assert caught.value.line() == (
        "error[E505 out-of-memory] 16 pictures at once did not fit into memory. Fix: close other "
        "programs, or compute fewer at once (predict --batch 8)"
    )


def test_row_42_many_pictures_that_do_not_fit_name_fewer_threads(model: Path) -> None:
    """Each thread computes one of them, so a smaller batch would not help."""

    class Session:
        def run(self, *_: object) -> None:
            raise RuntimeError("BFCArena: Failed to allocate memory for requested buffer of size 9")

    count = count_workers()
    classifier = Classifier(model)
    classifier._lone_session = Session()

    with pytest.raises(MachineError) as caught:
        list(classifier.answer_all(lambda _: np.zeros((96, 96, 3), np.uint8), range(100)))

    fewer = f", or use fewer threads (predict --threads {count // 2})" if count > 1 else ""
    assert caught.value.line() == (
        f"error[E505 out-of-memory] {count} pictures at once did not fit into memory. Fix: close "
        f"other programs{fewer}"
    )


def test_row_48_a_model_that_fails_when_it_runs_is_refused(model: Path, tiny_folder: Path) -> None:
    """What onnxruntime says stays out of stdout."""

    def reshape_wrongly(proto: Any) -> None:
        tensor = next(each for each in proto.graph.initializer if each.name == "resize/rows_shape")
        tensor.CopyFrom(numpy_helper.from_array(np.array([-1, 7]), tensor.name))

    _edit(model, reshape_wrongly)

    result = _call("predict", model, tiny_folder / "disc" / "00.png", "--json")

    assert result.exit_code == 4, result.output
    assert "error[E412 bad-model]" in result.stderr
    assert [line["code"] for line in _lines(result)] == ["E412"]
