from __future__ import annotations

from typing import Any

import pytest

from mnv2tl import config
from mnv2tl.mobilenet import (
    ALPHAS,
    INPUT,
    SIZES_PX,
    Layer,
    array_shapes,
    cut_at,
    layer_array_shapes,
    list_layers,
)


def _build_peer(monkeypatch: pytest.MonkeyPatch, alpha: float, image_px: int) -> Any:
    """Return Keras' own MobileNetV2, filled with zeros: its random values take 15 s on JAX."""
    import keras

    def zeros(self: Any, shape: tuple[int, ...], dtype: Any = None) -> Any:
        return keras.ops.zeros(shape, dtype)

    monkeypatch.setattr(keras.initializers.GlorotUniform, "__call__", zeros)
    keras.backend.clear_session()  # so that the pooling layer has no number in its name
    return keras.applications.MobileNetV2(
        (image_px, image_px, 3), alpha=alpha, include_top=False, weights=None, pooling="avg"
    )


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(("alpha", "image_px"), [(0.35, 96), (1.0, 224), (1.4, 128)])
def test_list_layers_is_the_network_of_keras(
    monkeypatch: pytest.MonkeyPatch, alpha: float, image_px: int
) -> None:
    """Names, wiring, output shapes and weight shapes are those of Keras Applications."""
    peer = _build_peer(monkeypatch, alpha, image_px)

    layers = list_layers(alpha=alpha, image_px=image_px)

    theirs = [layer for layer in peer.layers if type(layer).__name__ != "InputLayer"]
    assert [layer.name for layer in layers] == [layer.name for layer in theirs]
    for ours, their in zip(layers, theirs, strict=True):
        assert (None, *ours.output_shape) == their.output.shape, ours.name
        assert list(layer_array_shapes(ours).items()) == [
            (f"{their.name}/{weight.name}", tuple(weight.shape)) for weight in their.weights
        ]
        tensors = their.input if isinstance(their.input, list) else [their.input]
        sources = [tensor._keras_history.operation for tensor in tensors]
        names = [INPUT if source is peer.layers[0] else source.name for source in sources]
        assert list(ours.inputs) == names, ours.name
        assert {tensor.shape[-1] for tensor in tensors} == {ours.in_channels}, ours.name


@pytest.mark.parametrize(
    ("alpha", "features", "parameters"),
    [
        (0.35, 1280, 410_208),
        (0.5, 1280, 706_224),
        (0.75, 1280, 1_382_064),
        (1.0, 1280, 2_257_984),
        (1.3, 1664, 3_766_048),
        (1.4, 1792, 4_363_712),
    ],
)
def test_array_shapes_count_the_published_parameters(
    alpha: float, features: int, parameters: int
) -> None:
    """Keras prints these numbers for the network without its top, BatchNorm statistics too."""
    shapes = array_shapes(alpha)

    total = 0
    for shape in shapes.values():
        count = 1
        for side in shape:
            count *= side
        total += count
    assert total == parameters
    assert shapes["Conv_1/kernel"][-1] == features


@pytest.mark.parametrize("alpha", ALPHAS)
def test_every_width_has_as_many_layers_as_the_settings_say(alpha: float) -> None:
    """`config.ALL_LAYERS` bounds --trainable-layers without building the list."""
    layers = list_layers(alpha=alpha)

    assert len(layers) == config.ALL_LAYERS
    assert len({layer.name for layer in layers}) == len(layers)


@pytest.mark.parametrize("image_px", SIZES_PX)
def test_last_map_is_a_32nd_of_the_picture(image_px: int) -> None:
    """All sizes are multiples of 32, so that every stride halves an even side."""
    layers = list_layers(alpha=0.35, image_px=image_px)

    maps = [layer for layer in layers if layer.kind not in ("pad", "pool")]
    assert maps[-1].px == image_px // 32
    assert all(layer.px % 2 == 0 or layer.px == image_px // 32 for layer in maps)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"alpha": 0.25}, r"alpha must be one of \(0.35, .*, got 0.25"),
        ({"image_px": 225}, r"image_px must be one of \(96, .*, got 225"),
    ],
)
def test_list_layers_refuses_what_has_no_weights(wrong: dict[str, Any], message: str) -> None:
    """A width or size without ImageNet weights is a wrong argument."""
    with pytest.raises(ValueError, match=message):
        list_layers(**wrong)


@pytest.mark.parametrize("trainable_layers", range(155))
def test_cut_at_is_the_last_border_with_a_single_tensor(trainable_layers: int) -> None:
    """No later cut would do: each has two tensors across it or parts padding from convolution."""
    layers = list_layers(alpha=0.35, image_px=96)

    cut = cut_at(layers, trainable_layers)

    assert _is_clean(layers, cut)
    assert not any(_is_clean(layers, later) for later in range(cut + 1, 155 - trainable_layers))


def _is_clean(layers: tuple[Layer, ...], cut: int) -> bool:
    """Tell whether one tensor crosses a border, the last before it, and no padding is parted."""
    number_of = {INPUT: 0} | {layer.name: number for number, layer in enumerate(layers, 1)}
    crossing = {
        number_of[name] for layer in layers[cut:] for name in layer.inputs if number_of[name] <= cut
    }
    return crossing <= {cut} and (cut == 0 or layers[cut - 1].kind != "pad")


def test_cut_at_never_moves_back_with_fewer_trainable_layers() -> None:
    """One more trainable layer makes the trunk shorter or leaves it."""
    layers = list_layers(alpha=0.35, image_px=96)

    cuts = [cut_at(layers, count) for count in range(155)]

    assert cuts == sorted(cuts, reverse=True)
    assert (cuts[0], cuts[1], cuts[4], cuts[154]) == (154, 153, 150, 0)


@pytest.mark.parametrize(
    ("first_trainable", "first_of_head"),
    [
        ("Conv_1", "Conv_1"),
        ("block_16_project", "block_16_project"),  # no residual: the block may be cut
        ("block_15_project", "block_15_expand"),  # a residual runs around it
        ("block_15_add", "block_15_expand"),
        ("block_13_depthwise", "block_13_pad"),  # padding and convolution are one node in ONNX
    ],
)
def test_cut_at_moves_to_the_start_of_a_residual_block(
    first_trainable: str, first_of_head: str
) -> None:
    """The trunk ends before what it would have to hand over twice."""
    layers = list_layers(alpha=0.35, image_px=96)
    names = [layer.name for layer in layers]

    cut = cut_at(layers, len(layers) - names.index(first_trainable))

    assert names[cut] == first_of_head


@pytest.mark.parametrize("trainable_layers", [-1, 155])
def test_cut_at_refuses_layers_that_do_not_exist(trainable_layers: int) -> None:
    """The number is in the message, with the range."""
    message = f"trainable_layers must be from 0 to 154, got {trainable_layers}"

    with pytest.raises(ValueError, match=message):
        cut_at(list_layers(), trainable_layers)
