from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("keras")
pytest.importorskip("tensorflow")

import tensorflow as tf

from mnv2tl import store
from mnv2tl.cli import main
from mnv2tl.data import images
from mnv2tl.errors import ArtifactError, MachineError
from mnv2tl.metrics import softmax
from mnv2tl_export import golden, onnx_model
from mnv2tl_export.bundle import seal
from mnv2tl_export.gate import Candidate
from mnv2tl_export.metadata import Metadata
from mnv2tl_export.onnx_candidate import open_candidate as open_onnx
from mnv2tl_export.saved_model import SavedModel, open_candidate, write_saved_model
from mnv2tl_export.saved_model_file import GRAPH, METADATA
from tests.networks import draw_network

PX = 96
CLASS_NAMES = ("disc", "square", "stripes")
NETWORK: dict[str, Any] = {"alpha": 0.35, "image_px": PX, "scaling": "symmetric"}
# One pixel, lines, tall and wide, smaller, larger, one side right, both right, whole multiples.
SIZES = [
    *((1, 1), (1, 40), (40, 1), (2, 3), (7, 350), (350, 7), (64, 64), (63, 101), (96, 96)),
    *((96, 50), (50, 96), (192, 192), (288, 96), (480, 640), (641, 479), (900, 33)),
]


ARRAYS = draw_network(classes=len(CLASS_NAMES))


def _metadata() -> Metadata:
    return Metadata(
        class_names=CLASS_NAMES,
        image_px=PX,
        preprocessing={},
        temperature=2.0,
        run={},
        base_weights={},
        val_accuracy={},
        versions={},
        selftest=golden.describe([0.0] * len(CLASS_NAMES)),
        artifact={"format": "savedmodel", "via": "tensorflow"},
    )


def _write(folder: Path, *, temperature: float | None = 2.0) -> None:
    write_saved_model(ARRAYS, folder, **NETWORK, temperature=temperature, metadata=_metadata())


def _read_files(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def _draw_pixels(height: int, width: int, *, count: int = 1, seed: int = 2) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)


def _draw_waves(height: int, width: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x + y, 2 * x, 255 - y], axis=-1).astype(np.uint8)[np.newaxis]


def _call(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture(scope="module")
def native() -> Candidate:
    """Return the same network, opened from the ONNX file that we write."""
    return open_onnx(_write_onnx())


def _write_onnx() -> bytes:
    return onnx_model.write_model(
        ARRAYS,
        **NETWORK,
        temperature=2.0,
        metadata=_metadata().to_texts(),
    )


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory, _drawn_folder: Path) -> Path:
    """Return a bundle with an ONNX file, a SavedModel and the split of the drawn folder."""
    bundle = tmp_path_factory.mktemp("sealed") / "bundle"
    _write(bundle / "saved_model" / "1")
    store.write_bytes(bundle / "model.onnx", _write_onnx())
    files = sorted(_drawn_folder.rglob("*.png"))
    val = [(store.sha256_file(file), CLASS_NAMES.index(file.parent.name)) for file in files]
    store.write_json(bundle / "split.json", {"train": [], "val": val, "test": []})
    seal(bundle, {})
    return bundle


@pytest.fixture(scope="module")
def loaded(sealed: Path) -> Any:
    """Return the SavedModel as anybody loads it, in this process and without Keras."""
    return tf.saved_model.load(str(sealed / "saved_model" / "1"))


@pytest.fixture(scope="module")
def model(sealed: Path) -> Iterator[SavedModel]:
    """Return the SavedModel as our commands open it."""
    with SavedModel(sealed / "saved_model", batch_size=2) as model:
        yield model


@pytest.fixture
def bundle(sealed: Path, tmp_path: Path) -> Path:
    """Return a copy of the bundle for this test alone."""
    return Path(shutil.copytree(sealed, tmp_path / "bundle"))


def _predict(loaded: Any, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    answer: NDArray[np.float32] = loaded.signatures["serving_default"](image=tf.constant(pixels))[
        "probabilities"
    ].numpy()
    return answer


def test_signature_is_the_promised_one(loaded: Any) -> None:
    """Names, types and free sizes are what every client relies on."""
    signature = loaded.signatures["serving_default"]

    (_, inputs), outputs = signature.structured_input_signature, signature.structured_outputs
    assert inputs.keys() == {"image"}
    assert inputs["image"].dtype == tf.uint8
    assert inputs["image"].shape.as_list() == [None, None, None, 3]
    assert outputs.keys() == {"probabilities"}
    assert outputs["probabilities"].dtype == tf.float32
    assert outputs["probabilities"].shape.as_list() == [None, len(CLASS_NAMES)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_answers_are_those_of_the_onnx_file(
    loaded: Any, native: Candidate, height: int, width: int
) -> None:
    """Two roads that share neither graph nor runtime agree, for any size."""
    pixels = _draw_pixels(height, width, count=3)

    probabilities = _predict(loaded, pixels)

    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, native.predict(pixels), atol=1e-5)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_graph_resizes_as_pillow_does(loaded: Any, height: int, width: int) -> None:
    """Every level is the same, of noise and of smooth pictures."""
    for pixels in (_draw_pixels(height, width, count=2), _draw_waves(height, width)):
        resized = loaded.resize(tf.constant(pixels)).numpy()

        expected = np.stack([images.resize(each, PX) for each in pixels])
        np.testing.assert_array_equal(resized, expected)


def test_graph_resizes_pictures_of_random_sizes_as_pillow_does(loaded: Any) -> None:
    """No size that the list above leaves out is different."""
    for height, width in np.random.default_rng(3).integers(1, 500, (25, 2)).tolist():
        pixels = _draw_waves(height, width)

        resized = loaded.resize(tf.constant(pixels)).numpy()[0]

        np.testing.assert_array_equal(resized, images.resize(pixels[0], PX))


@pytest.mark.parametrize("count", [1, 2, 5, 17])
def test_batches_of_any_size_answer_alike(loaded: Any, count: int) -> None:
    """Each picture's answer does not depend on its neighbours."""
    pixels = _draw_pixels(64, 80, count=count)

    together = _predict(loaded, pixels)

    alone = np.concatenate([_predict(loaded, pixels[i : i + 1]) for i in range(count)])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_folder_is_what_tensorflow_serving_takes(sealed: Path) -> None:
    """A number as the version, the tag `serve` and the method of prediction."""
    from tensorflow.core.protobuf import saved_model_pb2

    folder = sealed / "saved_model"
    saved = saved_model_pb2.SavedModel.FromString((folder / "1" / GRAPH).read_bytes())

    assert [each.name for each in folder.iterdir()] == ["1"]
    assert {path.name for path in (folder / "1").iterdir()} == {
        GRAPH,
        "variables",
        "assets.extra",
    }
    (graph,) = saved.meta_graphs
    assert list(graph.meta_info_def.tags) == ["serve"]
    signature = graph.signature_def["serving_default"]
    assert signature.method_name == "tensorflow/serving/predict"


def test_metadata_lie_beside_the_graph(sealed: Path) -> None:
    """They are the texts that an ONNX file has inside."""
    texts = json.loads((sealed / "saved_model" / "1" / METADATA).read_bytes())

    assert texts == _metadata().to_texts()


def test_equal_weights_give_equal_files(
    sealed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of time, order or chance is in them."""
    monkeypatch.setenv("PYTHONHASHSEED", "7")

    _write(tmp_path / "again")

    assert _read_files(tmp_path / "again") == _read_files(sealed / "saved_model" / "1")


def test_temperature_can_be_left_out(tmp_path: Path) -> None:
    """Probabilities are then the plain softmax of the logits."""
    pixels = _draw_pixels(64, 80, count=3)
    _write(tmp_path / "1", temperature=None)

    with open_candidate(tmp_path / "1", _metadata()) as candidate:
        assert candidate.logits is not None
        expected = softmax(candidate.logits(pixels), temperature=1.0)
        np.testing.assert_allclose(candidate.predict(pixels), expected, atol=1e-6)


def test_gate_sees_what_the_saved_object_computes(sealed: Path, native: Candidate) -> None:
    """Probabilities, logits and resized pixels come from the folder, not from Keras."""
    pixels = _draw_pixels(120, 70, count=3)
    metadata = _metadata()

    with open_candidate(sealed / "saved_model" / "1", metadata) as candidate:
        assert candidate.format == "savedmodel"
        assert candidate.selftest == metadata.selftest
        assert candidate.logits is not None
        assert native.logits is not None
        np.testing.assert_allclose(candidate.logits(pixels), native.logits(pixels), atol=1e-4)
        np.testing.assert_allclose(candidate.predict(pixels), native.predict(pixels), atol=1e-5)
        np.testing.assert_array_equal(candidate.resize(pixels), native.resize(pixels))


def test_opened_model_answers_for_files_and_pixels(
    model: SavedModel, native: Candidate, tiny_folder: Path
) -> None:
    """It is asked as `Classifier` is, in batches."""
    file = tiny_folder / "disc" / "00.png"
    pixels = _draw_pixels(200, 100, count=2)

    probabilities = model([file, pixels[0], pixels[1]])

    pictures = [images.read(file), *pixels]
    expected = [native.predict(each[np.newaxis])[0] for each in pictures]
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    np.testing.assert_allclose(model.predict_pixels(pixels), probabilities[1:], atol=1e-6)
    assert (model.class_names, model.image_px, model.batch_size) == (CLASS_NAMES, PX, 2)
    assert model([]).shape == (0, 3)


def test_opened_model_runs_its_selftest(model: SavedModel) -> None:
    """It answers to the picture that travels with it, which here comes with a wrong answer."""
    found = model.selftest()

    assert not found.passed
    assert found.direct_diff == pytest.approx(found.resized_diff, abs=1e-6)


def test_version_folder_is_taken_as_well(sealed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`saved_model/1` is the same model, under whatever name it is reached."""
    monkeypatch.chdir(sealed / "saved_model" / "1")

    with SavedModel(Path(".")) as model:
        assert model.path == sealed / "saved_model"
        assert model.metadata == _metadata()


def _change_byte(folder: Path) -> None:
    content = bytearray((folder / GRAPH).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / GRAPH).write_bytes(content)


def _link_variables(folder: Path) -> None:
    data = next((folder / "variables").glob("*.data*"))
    shutil.move(data, folder.parent / "elsewhere")
    data.symlink_to(folder.parent / "elsewhere")


CHANGES: dict[str, Callable[[Path], object]] = {
    "changed": _change_byte,
    "foreign": lambda folder: (folder / GRAPH).write_bytes(b"not a graph"),
    "added": lambda folder: (folder / "assets.extra" / "more").write_bytes(b""),
    "missing": lambda folder: (folder / "variables" / "variables.index").unlink(),
    "link": _link_variables,
    "no seal": lambda folder: (folder.parent.parent / "bundle.json").unlink(),
    "damaged seal": lambda folder: (folder.parent.parent / "bundle.json").write_bytes(b"[" * 9999),
    "empty seal": lambda folder: (folder.parent.parent / "bundle.json").write_bytes(b"{}"),
    "odd seal": lambda folder: (folder.parent.parent / "bundle.json").write_bytes(b'{"files": []}'),
    "seal of others": lambda folder: (
        seal(folder / "variables", {})
        and shutil.copy(folder / "variables" / "bundle.json", folder.parent.parent)
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_row_49_saved_model_that_is_not_the_sealed_one_is_refused(bundle: Path, name: str) -> None:
    """TensorFlow does not see it: what is no graph at all would be E412 if it were loaded."""
    CHANGES[name](bundle / "saved_model" / "1")

    with pytest.raises(ArtifactError) as caught:
        SavedModel(bundle / "saved_model")

    assert caught.value.code == "E413"


def test_sealed_folder_that_tensorflow_cannot_load_is_refused(bundle: Path) -> None:
    """The message names the bundle's folder, not the copy that was loaded."""
    (bundle / "saved_model" / "1" / GRAPH).write_bytes(b"not a graph")
    seal(bundle, {})

    with pytest.raises(ArtifactError, match="TensorFlow cannot load it") as caught:
        SavedModel(bundle / "saved_model")

    assert caught.value.code == "E412"
    assert caught.value.path == str(bundle / "saved_model")


def test_folder_without_a_graph_is_no_saved_model(tmp_path: Path) -> None:
    """Whatever else lies in it, it is not opened."""
    with pytest.raises(ArtifactError, match="no SavedModel") as caught:
        SavedModel(tmp_path)

    assert caught.value.code == "E410"


def test_saved_model_without_our_metadata_is_refused(bundle: Path) -> None:
    """Nothing says what its classes are, or that it is ours."""
    (bundle / "saved_model" / "1" / METADATA).unlink()

    with pytest.raises(ArtifactError, match="mnv2tl export wrote") as caught:
        SavedModel(bundle / "saved_model")

    assert caught.value.code == "E411"


@pytest.mark.parametrize("content", [b"[]", b"{", b'{"mnv2tl.schema": "1"}'])
def test_damaged_metadata_are_refused(bundle: Path, content: bytes) -> None:
    """Even if bundle.json names them."""
    (bundle / "saved_model" / "1" / METADATA).write_bytes(content)
    seal(bundle, {})

    with pytest.raises(ArtifactError, match="damaged metadata") as caught:
        SavedModel(bundle / "saved_model")

    assert caught.value.code == "E412"


def test_pixels_of_another_type_are_refused(model: SavedModel) -> None:
    """What TensorFlow refuses is an error of ours."""
    with pytest.raises(ArtifactError, match="TensorFlow cannot run it") as caught:
        model.predict_pixels(np.zeros((1, 8, 8, 4), np.uint8))

    assert caught.value.code == "E412"


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ("raise ImportError('no such library')", "E508", "no such library"),
        ("import os; os.kill(os.getpid(), 9)", "E505", "ended with -9"),
    ],
)
def test_end_of_the_other_process_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, code: str, words: str
) -> None:
    """A TensorFlow that cannot be imported, or is killed, is no bug of ours."""
    broken = tmp_path / "packages" / "tensorflow"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text(body)
    others = os.environ.get("PYTHONPATH")
    paths = [str(broken.parent), *([others] if others else [])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))

    with pytest.raises(MachineError, match=words) as caught:
        _write(tmp_path / "1")

    assert caught.value.code == code


def test_missing_tensorflow_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says which extra brings it."""
    monkeypatch.setitem(sys.modules, "tensorflow", None)

    with pytest.raises(MachineError, match=r"tensorflow is not installed.*savedmodel") as caught:
        _write(tmp_path / "1")

    assert caught.value.code == "E508"


def test_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """Before TensorFlow is started."""
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(MachineError, match="failed"):
        _write(tmp_path / "file" / "1")


@pytest.mark.parametrize("name", ["saved_model", "saved_model/1"])
def test_evaluate_takes_a_saved_model(bundle: Path, tiny_folder: Path, name: str) -> None:
    """The figures are those of the ONNX file in the same bundle."""
    results = [
        _call("evaluate", bundle / each, tiny_folder, "--json") for each in (name, "model.onnx")
    ]

    saved, native = (json.loads(result.stdout) for result in results)
    assert saved.pop("runtime").startswith("tensorflow 2.")
    assert native.pop("runtime").startswith("onnxruntime 1.")
    assert saved.pop("loss") == pytest.approx(native.pop("loss"), abs=1e-5)
    assert saved == native
    assert saved["images"] == 36


def test_evaluate_refuses_a_bundle(bundle: Path, tiny_folder: Path) -> None:
    """It holds several models; the message names them."""
    result = _call("evaluate", bundle, tiny_folder)

    assert result.exit_code == 4
    assert "error[E410" in result.stderr
    assert "model.onnx or saved_model" in result.stderr


def test_evaluate_of_a_saved_model_needs_data(bundle: Path) -> None:
    """A bundle does not say where the images lie."""
    result = _call("evaluate", bundle / "saved_model")

    assert result.exit_code == 2
    assert "needs DATA" in result.stderr
