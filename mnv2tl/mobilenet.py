"""MobileNetV2 as a list of layers: names, shapes and wiring, without any framework.

Keras models and ONNX graphs are both built from this list, so that they cannot differ. Source:
Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", arXiv:1801.04381; layer
names, paddings and channel rounding as in keras/src/applications/mobilenet_v2.py, Keras 3.15.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["conv", "depthwise", "batch_norm", "relu6", "pad", "add", "pool"]

INPUT = "image"
"""What a layer names as its input when it reads the scaled picture."""

DENSE = "predictions"
"""Name of the new last layer, as in Keras Applications."""

# Keras has ImageNet weights for these only: keras/src/applications/mobilenet_v2.py, 3.15.1.
ALPHAS = (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)
SIZES_PX = (96, 128, 160, 192, 224)

BATCH_NORM_EPSILON = 1e-3
BATCH_NORM_MOMENTUM = 0.999

# Table 2 of the paper, one row per block: output channels at alpha 1, stride.
_BLOCKS = (
    (16, 1),
    *((24, 2), (24, 1)),
    *((32, 2), (32, 1), (32, 1)),
    *((64, 2), (64, 1), (64, 1), (64, 1)),
    *((96, 1), (96, 1), (96, 1)),
    *((160, 2), (160, 1), (160, 1)),
    (320, 1),
)
_EXPANSION = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer and where it reads from."""

    name: str
    """The name that Keras Applications gives it."""
    kind: Kind
    """What it computes; every convolution is without bias."""
    inputs: tuple[str, ...]
    """Names of the layers it reads, or `INPUT`."""
    in_channels: int
    """Channels of each input."""
    channels: int
    """Channels of the output."""
    px: int
    """Side of the output in pixels; 0 for the pooled vector."""
    kernel_px: int = 1
    """Side of the kernel of a convolution."""
    stride: int = 1
    """Step of a convolution."""

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the output without the batch axis: (px, px, channels) or (channels,)."""
        return (self.px, self.px, self.channels) if self.px else (self.channels,)


def list_layers(*, alpha: float = 1.0, image_px: int = 224) -> tuple[Layer, ...]:
    """Return all layers from the scaled picture to the pooled features, in order.

    Args:
        alpha: Width of the network, one of `ALPHAS`.
        image_px: Side of the square input in pixels, one of `SIZES_PX`.

    Raises:
        ValueError: The width or size is not one that has ImageNet weights.

    >>> [layer.name for layer in list_layers()[-4:]]
    ['Conv_1', 'Conv_1_bn', 'out_relu', 'global_average_pooling2d']
    """
    if alpha not in ALPHAS:
        raise ValueError(f"alpha must be one of {ALPHAS}, got {alpha}")
    if image_px not in SIZES_PX:
        raise ValueError(f"image_px must be one of {SIZES_PX}, got {image_px}")
    chain = _Chain(INPUT, 3, image_px)
    chain.conv("Conv1", _round_channels(32 * alpha), kernel_px=3, stride=2)
    chain.normalise("bn_Conv1", relu="Conv1_relu")
    for index, (channels, stride) in enumerate(_BLOCKS):
        _append_block(chain, index, _round_channels(int(channels * alpha)), stride)
    chain.conv("Conv_1", _round_channels(1280 * max(alpha, 1.0)))
    chain.normalise("Conv_1_bn", relu="out_relu")
    chain.append("global_average_pooling2d", "pool", px=0)
    return tuple(chain.layers)


def array_shapes(alpha: float) -> dict[str, tuple[int, ...]]:
    """Return the shape of every weight array by its key, such as `Conv1/kernel`.

    Kernels are (height, width, in, out), depthwise kernels (height, width, channels, 1), as in
    Keras.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in list_layers(alpha=alpha):
        shapes |= layer_array_shapes(layer)
    return shapes


def layer_array_shapes(layer: Layer) -> dict[str, tuple[int, ...]]:
    """Return the shapes of one layer's weight arrays, in the order in which Keras keeps them."""
    side = layer.kernel_px
    match layer.kind:
        case "conv":
            return {f"{layer.name}/kernel": (side, side, layer.in_channels, layer.channels)}
        case "depthwise":
            return {f"{layer.name}/kernel": (side, side, layer.channels, 1)}
        case "batch_norm":
            parts = ("gamma", "beta", "moving_mean", "moving_variance")
            return {f"{layer.name}/{part}": (layer.channels,) for part in parts}
        case _:
            return {}


def cut_at(layers: tuple[Layer, ...], trainable_layers: int) -> int:
    """Return how many layers form the frozen trunk when the last ones are trained.

    The cut lies at the last place before the first trainable layer where a single tensor passes:
    a residual block is never cut through its middle, and padding stays with its convolution,
    since the two are one node in ONNX.

    Args:
        layers: All layers, as `list_layers` gives them.
        trainable_layers: How many layers from the end are trained, 0 to len(layers).

    Returns:
        A count from 0 (the trunk is empty, the head reads pictures) to len(layers) (only the new
        Dense layer is trained).

    Raises:
        ValueError: There are fewer layers than that.

    >>> cut_at(list_layers(), 4) == len(list_layers()) - 4
    True
    """
    if not 0 <= trainable_layers <= len(layers):
        raise ValueError(
            f"trainable_layers must be from 0 to {len(layers)}, got {trainable_layers}"
        )
    cut = len(layers) - trainable_layers
    while not _is_single_tensor(layers, cut) or (cut and layers[cut - 1].kind == "pad"):
        cut -= 1
    return cut


def _is_single_tensor(layers: tuple[Layer, ...], cut: int) -> bool:
    border = layers[cut - 1].name if cut else INPUT
    before = {INPUT, *(layer.name for layer in layers[:cut])}
    read = {name for layer in layers[cut:] for name in layer.inputs if name in before}
    return read <= {border}


class _Chain:
    """Appends layers one after the other and keeps the shape of the last output."""

    def __init__(self, last: str, channels: int, px: int) -> None:
        self.layers: list[Layer] = []
        self.last = last
        self.channels = channels
        self.px = px

    def append(
        self,
        name: str,
        kind: Kind,
        *,
        channels: int | None = None,
        px: int | None = None,
        kernel_px: int = 1,
        stride: int = 1,
        inputs: tuple[str, ...] | None = None,
    ) -> None:
        """Append a layer; what is not given stays as in the layer before."""
        layer = Layer(
            name=name,
            kind=kind,
            inputs=inputs or (self.last,),
            in_channels=self.channels,
            channels=self.channels if channels is None else channels,
            px=self.px if px is None else px,
            kernel_px=kernel_px,
            stride=stride,
        )
        self.layers.append(layer)
        self.last, self.channels, self.px = layer.name, layer.channels, layer.px

    def conv(self, name: str, channels: int, *, kernel_px: int = 1, stride: int = 1) -> None:
        """Append a convolution with padding 'same'."""
        px = self.px // stride
        self.append(name, "conv", channels=channels, px=px, kernel_px=kernel_px, stride=stride)

    def normalise(self, name: str, *, relu: str | None = None) -> None:
        """Append a BatchNorm and perhaps a ReLU6."""
        self.append(name, "batch_norm")
        if relu is not None:
            self.append(relu, "relu6")


def _append_block(chain: _Chain, index: int, channels: int, stride: int) -> None:
    """Append one inverted residual block (figure 4 of the paper)."""
    prefix = f"block_{index}" if index else "expanded_conv"
    start, in_channels = chain.last, chain.channels
    if index:
        chain.conv(f"{prefix}_expand", _EXPANSION * in_channels)
        chain.normalise(f"{prefix}_expand_BN", relu=f"{prefix}_expand_relu")
    if stride == 2:
        # Every size here is even, so Keras' correct_pad gives one row below and one to the right.
        chain.append(f"{prefix}_pad", "pad", px=chain.px + 1)
    chain.append(
        f"{prefix}_depthwise", "depthwise", px=chain.px // stride, kernel_px=3, stride=stride
    )
    chain.normalise(f"{prefix}_depthwise_BN", relu=f"{prefix}_depthwise_relu")
    chain.conv(f"{prefix}_project", channels)
    chain.normalise(f"{prefix}_project_BN")
    if stride == 1 and in_channels == channels:
        chain.append(f"{prefix}_add", "add", inputs=(start, chain.last))


def _round_channels(channels: float) -> int:
    """Round to a multiple of 8, never more than 10 % down: `_make_divisible` in Keras."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
