from __future__ import annotations

import functools
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
import onnxruntime
from onnx import NodeProto, TensorProto, helper, numpy_helper

from mnv2tl import progress, store
from mnv2tl.data import images
from mnv2tl.errors import ResultError
from mnv2tl.metrics import log_loss, top1_accuracy
from mnv2tl_export.onnx_file import DOMAINS, OPERATORS
from mnv2tl_export.onnx_fp16 import convert_fp16
from mnv2tl_export.onnx_int8 import RECIPES, Score, search
from mnv2tl_export.onnx_model import LOGITS, OUTPUT, RESIZED, write_model
from mnv2tl_export.onnx_network import finish, fold_scales, walk
from mnv2tl_export.onnx_quantise import Recipe, quantise
from tests.networks import draw_network

PX = 96
CLASSES = 4
Convert = Callable[[bytes], bytes]


def _write(arrays: dict[str, NDArray[np.float32]]) -> bytes:
    return write_model(
        arrays,
        alpha=0.35,
        image_px=PX,
        scaling="symmetric",
        temperature=2.0,
        metadata={"mnv2tl.schema": "1", "other": "kept"},
    )


def _draw_pictures(count: int, seed: int, *, sides: tuple[int, int] = (PX, PX)) -> NDArray[Any]:
    """Return pictures of waves in many colours, shape (count, height, width, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : sides[0], 0 : sides[1]]
    rates = rng.uniform(0.01, 0.4, (count, 2, 1, 1, 3))
    levels = rng.uniform(0, 255, (count, 1, 1, 3))
    waves = np.sin(rates[:, 0] * x[..., None] + rates[:, 1] * y[..., None])
    noise = rng.normal(0, 8, (count, *sides, 3))
    return np.asarray(np.clip(levels + 90 * waves + noise, 0, 255), np.uint8)


ARRAYS = draw_network(classes=CLASSES)
ARRAYS["predictions/kernel"] *= 3  # so that labels differ between pictures
FLOAT32 = _write(ARRAYS)
CALIBRATION = _draw_pictures(6, seed=2)
PIXELS = _draw_pictures(40, seed=3)


def _ask(content: bytes, pixels: NDArray[np.uint8], output: str = OUTPUT) -> NDArray[Any]:
    """Return a tensor of a model; one inside of it becomes an output first."""
    model = onnx.load_from_string(content)
    if output != OUTPUT:
        kind = TensorProto.UINT8 if output == RESIZED else TensorProto.FLOAT
        model.graph.output.append(helper.make_tensor_value_info(output, kind, None))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run([output], {"image": pixels})[0])


LABELS: NDArray[np.int64] = _ask(FLOAT32, PIXELS).argmax(axis=1)


def _score(content: bytes, labels: NDArray[np.int64] = LABELS) -> Score:
    probabilities = _ask(content, PIXELS)
    accuracy = top1_accuracy(probabilities, labels)
    return Score(accuracy=accuracy, loss=log_loss(probabilities, labels))


@functools.cache
def _quantise(content: bytes, recipe: Recipe = RECIPES[0]) -> bytes:
    return quantise(content, recipe, CALIBRATION)


def _constants(content: bytes) -> dict[str, NDArray[Any]]:
    graph = onnx.load_from_string(content).graph
    return {each.name: numpy_helper.to_array(each) for each in graph.initializer}


def _convolutions(content: bytes) -> list[NodeProto]:
    return [each for each in onnx.load_from_string(content).graph.node if each.op_type == "Conv"]


CONVERTERS: dict[str, Convert] = {
    "fp16": convert_fp16,
    "int8": _quantise,
    "uint8": functools.partial(_quantise, recipe=RECIPES[3]),
}


@pytest.fixture(params=list(CONVERTERS))
def convert(request: pytest.FixtureRequest) -> Convert:
    """Return each way to convert."""
    return CONVERTERS[request.param]


@pytest.fixture(autouse=True)
def _quiet() -> None:
    """Show no bars."""
    progress.set_quiet(True)


def test_converted_file_is_valid_and_of_allowed_operators(convert: Convert) -> None:
    """`mnv2tl predict` refuses other operators, domains and types of input and output."""
    model = onnx.load_from_string(convert(FLOAT32))

    onnx.checker.check_model(model, full_check=True)
    nodes = list(walk(model.graph.node))
    assert {node.op_type for node in nodes} <= OPERATORS
    assert {each.domain for each in [*nodes, *model.opset_import]} <= DOMAINS
    before = onnx.load_from_string(FLOAT32)
    assert list(model.graph.input) == list(before.graph.input)
    assert list(model.graph.output) == list(before.graph.output)
    assert model.ir_version == before.ir_version
    assert list(model.opset_import) == list(before.opset_import)


def test_converted_file_keeps_metadata_and_producer(convert: Convert) -> None:
    """Class names and preprocessing rule travel on."""
    before, after = (onnx.load_from_string(each) for each in (FLOAT32, convert(FLOAT32)))

    assert list(after.metadata_props) == list(before.metadata_props)
    assert after.producer_name == before.producer_name


@pytest.mark.parametrize("sides", [(PX, PX), (70, 131), (200, 33)])
def test_resize_of_a_converted_file_is_still_pillows(
    convert: Convert, sides: tuple[int, int]
) -> None:
    """The front needs whole numbers of 22 bits; nothing of it may be halved or quantised."""
    pictures = _draw_pictures(2, seed=4, sides=sides)

    resized = _ask(convert(FLOAT32), pictures, RESIZED).reshape(-1, PX, PX, 3)

    expected = np.stack([images.resize(each, PX) for each in pictures])
    np.testing.assert_array_equal(resized, expected)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_quantising_twice_gives_equal_bytes(recipe: Recipe) -> None:
    """The same export twice gives the same files; so do other seeds of Python's hashes."""
    assert _quantise(FLOAT32, recipe) == quantise(FLOAT32, recipe, CALIBRATION)


def test_quantising_in_another_process_gives_equal_bytes(tmp_path: Path) -> None:
    """Sets of names have another order there."""
    (tmp_path / "float32.onnx").write_bytes(FLOAT32)
    np.save(tmp_path / "pixels.npy", CALIBRATION)
    code = (
        "import hashlib, pathlib, numpy as np; from mnv2tl_export.onnx_int8 import RECIPES; "
        "from mnv2tl_export.onnx_quantise import quantise; "
        "content = pathlib.Path('float32.onnx').read_bytes(); "
        "made = quantise(content, RECIPES[0], np.load('pixels.npy')); "
        "print(hashlib.sha256(made).hexdigest())"
    )
    roots = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "export")]
    env = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(roots)}

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, check=True, capture_output=True
    )

    assert done.stdout.decode().split() == [store.sha256_bytes(_quantise(FLOAT32))]


def test_halving_twice_gives_equal_bytes() -> None:
    """The same export twice gives the same files."""
    assert convert_fp16(FLOAT32) == convert_fp16(FLOAT32)


@pytest.mark.parametrize(
    ("change", "share"), [(convert_fp16, 0.5), (_quantise, 0.25)], ids=["fp16", "int8"]
)
def test_converted_weights_are_smaller(change: Convert, share: float) -> None:
    """Half of the bytes of all constants, or a quarter and what the scales need."""
    before, after = (
        sum(each.nbytes for each in _constants(content).values())
        for content in (FLOAT32, change(FLOAT32))
    )

    assert share * before < after < (share + 0.1) * before


def test_fp16_answers_nearly_alike_in_every_batch_size() -> None:
    """Half precision has 11 bits; the tensor `logits` stays there as float32."""
    halved = convert_fp16(FLOAT32)

    probabilities = _ask(halved, PIXELS)

    # Drawn weights amplify roundings far more than trained ones, which stay near 1e-2.
    np.testing.assert_allclose(probabilities, _ask(FLOAT32, PIXELS), atol=0.05)
    one_by_one = np.concatenate([_ask(halved, PIXELS[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(one_by_one, probabilities[:5], atol=1e-5)
    assert _ask(halved, PIXELS, LOGITS).dtype == np.float32


def test_fp16_network_has_no_float32_constant() -> None:
    """What remains in float32 belongs to the resize, the scaling and the temperature."""
    floats = [
        name for name, value in _constants(convert_fp16(FLOAT32)).items() if value.dtype == "f4"
    ]

    assert all(name.startswith(("resize/", "scaling/", "temperature")) for name in floats)


def test_fp16_limits_weights_that_are_too_large() -> None:
    """Beyond 65504 a float16 would be infinite, and the answer NaN."""
    arrays = dict(ARRAYS)
    arrays["predictions/bias"] = np.array([1e6, -1e6, 0, 0], np.float32)

    halved = convert_fp16(_write(arrays))

    bias = _constants(halved)["predictions/bias/half"]
    np.testing.assert_array_equal(bias, np.array([65504, -65504, 0, 0], np.float16))
    assert np.isfinite(_ask(halved, PIXELS)).all()


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_int8_answers_much_like_float32(recipe: Recipe) -> None:
    """Most labels stay, in one batch and one by one; drawn weights are hard to quantise."""
    made = _quantise(FLOAT32, recipe)

    probabilities = _ask(made, PIXELS)

    assert top1_accuracy(probabilities, LABELS) >= 0.9
    one_by_one = np.concatenate([_ask(made, PIXELS[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(one_by_one, probabilities[:5], atol=1e-5)
    assert _ask(made, PIXELS, LOGITS).shape == (len(PIXELS), CLASSES)


def test_int8_leaves_the_first_three_convolutions_in_float32() -> None:
    """Only there onnxruntime does not quantise what was left out."""
    quantised = ["DequantizeLinear" in node.input[1] for node in _convolutions(_quantise(FLOAT32))]

    assert quantised == [False] * 3 + [True] * (len(quantised) - 3)


def test_int8_weights_that_are_summed_over_channels_have_seven_bits() -> None:
    """Two products of 8 bits would saturate on processors without VNNI."""
    made = _quantise(FLOAT32)

    constants = _constants(made)
    largest: dict[bool, int] = {True: 0, False: 0}
    for node in _convolutions(made)[3:]:
        is_depthwise = next(each.i for each in node.attribute if each.name == "group") > 1
        weight = constants[node.input[1].replace("DequantizeLinear_Output", "quantized")]
        assert weight.dtype == np.int8
        top = int(np.abs(weight.astype(int)).max())
        largest[is_depthwise] = max(largest[is_depthwise], top)
    assert largest == {True: 127, False: 64}


def test_int8_bias_of_a_constant_channel_leaves_room_for_its_products() -> None:
    """BatchNorm may fold to weights near zero, whose scale makes the bias overflow 32 bits."""
    arrays = {key: value.copy() for key, value in ARRAYS.items()}
    arrays["block_3_expand_BN/gamma"][:5] = 1e-12
    arrays["block_3_expand_BN/beta"][:5] = 3.0

    made = _quantise(_write(arrays))

    assert np.abs(_constants(made)["block_3_expand/bias_quantized"].astype(float)).max() < 2**29
    labels = _ask(_write(arrays), PIXELS).argmax(axis=1)
    assert top1_accuracy(_ask(made, PIXELS), labels) >= 0.9


def test_quantising_leaves_nothing_behind_and_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Results alone go to stdout; onnxruntime's tools print, log and write."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    handlers = list(logging.root.handlers)

    _quantise(FLOAT32, RECIPES[1])

    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")
    assert logging.root.handlers == handlers


def test_quantising_refuses_what_it_cannot_calibrate() -> None:
    """Pictures and a known method are needed, and a network."""
    with pytest.raises(ValueError, match="no calibration picture"):
        quantise(FLOAT32, RECIPES[0], CALIBRATION[:0])
    with pytest.raises(ValueError, match=r"must be one of .*'min-max'.*, got 'guess'"):
        _quantise(FLOAT32, replace(RECIPES[0], calibration="guess"))
    with pytest.raises(ValueError, match="no convolution between resize/output and logits"):
        convert_fp16(FLOAT32.replace(b"logits", b"lozits"))


def test_factors_after_a_convolution_are_folded(convert: Convert) -> None:
    """tf2onnx leaves BatchNorm behind depthwise convolutions; both roads give equal answers."""
    unfolded = _unfold(FLOAT32, "block_3_depthwise")
    assert unfolded != FLOAT32

    labels = _ask(convert(unfolded), PIXELS).argmax(axis=1)

    # Weights are rounded once more on the way, so a level may differ.
    assert top1_accuracy(_ask(convert(FLOAT32), PIXELS), labels) >= 0.9
    model = onnx.load_from_string(unfolded)
    fold_scales(model)
    operators = [node.op_type for node in onnx.load_from_string(finish(model)).graph.node]
    assert operators == [node.op_type for node in onnx.load_from_string(FLOAT32).graph.node]


def _unfold(content: bytes, name: str) -> bytes:
    """Return a model whose convolution is followed by a factor and a summand, without a bias."""
    model = onnx.load_from_string(content)
    nodes = list(model.graph.node)
    at = next(i for i, node in enumerate(nodes) if node.name == name)
    constants = {each.name: each for each in model.graph.initializer}
    factor = np.linspace(0.5, 2, constants[f"{name}/bias"].dims[0], dtype=np.float32)
    weight = numpy_helper.to_array(constants[f"{name}/weight"]) / factor.reshape(-1, 1, 1, 1)
    bias = numpy_helper.to_array(constants[f"{name}/bias"])
    constants[f"{name}/weight"].CopyFrom(numpy_helper.from_array(weight, f"{name}/weight"))
    for key, value in (
        ("factor", factor.reshape(1, -1, 1, 1)),
        ("summand", bias.reshape(-1, 1, 1)),
    ):
        model.graph.initializer.append(numpy_helper.from_array(value, key))
    del nodes[at].input[2]
    nodes[at].output[0] = "convolved"
    mul = helper.make_node("Mul", ["convolved", "factor"], ["scaled"], name="scaled")
    add = helper.make_node("Add", ["summand", "scaled"], [name], name="shifted")
    del model.graph.node[:]
    model.graph.node.extend([*nodes[: at + 1], mul, add, *nodes[at + 1 :]])
    return finish(model)


def test_search_takes_the_least_loss_of_the_first_group_that_holds() -> None:
    """Time is not measured, so the same export chooses the same recipe again."""
    found = search(FLOAT32, CALIBRATION, _score, budget=0.2)

    assert [trial.recipe for trial in found.trials] == [r for r in RECIPES if r.group == 0]
    best = min(found.trials, key=lambda trial: trial.score.loss)
    assert found.recipe == best.recipe
    assert found.content == _quantise(FLOAT32, best.recipe)
    assert found.trials[0].to_json()["name"] == RECIPES[0].name
    assert search(FLOAT32, CALIBRATION, _score, budget=0.2) == found


def test_search_goes_on_to_the_next_group_if_none_of_the_first_holds() -> None:
    """A recipe that loses more than the budget is not taken, however fast it is."""
    arrays = {key: value.copy() for key, value in ARRAYS.items()}
    # One channel is so large that one scale for all leaves nothing of the others.
    for key in arrays:
        if key.endswith("depthwise_BN/gamma"):
            arrays[key][0] = 1e4
    float32 = _write(arrays)
    score = functools.partial(_score, labels=_ask(float32, PIXELS).argmax(axis=1))
    ruinous = Recipe(name="per tensor", per_channel=False)
    good = replace(RECIPES[0], group=1)
    budget = 1 - score(_quantise(float32, good)).accuracy
    assert score(_quantise(float32, ruinous)).accuracy < 1 - budget

    found = search(float32, CALIBRATION, score, budget=budget, recipes=(ruinous, good))

    assert found.recipe == good
    assert [trial.recipe for trial in found.trials] == [ruinous, good]


def test_search_says_what_it_tried_if_no_recipe_holds() -> None:
    """The command ends with exit 6 and no file."""
    with pytest.raises(ResultError) as caught:
        search(FLOAT32, CALIBRATION, _score, budget=-0.5, recipes=RECIPES[:2])

    assert caught.value.code == "E601"
    assert "no int8 recipe keeps the validation accuracy at 1.5000" in caught.value.message
    assert "min-max 0." in caught.value.message or "min-max 1." in caught.value.message
    assert "percentile" in caught.value.message
