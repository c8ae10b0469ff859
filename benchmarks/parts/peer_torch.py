"""A plain PyTorch script with a frozen base: torchvision's MobileNetV2 with Keras' weights.

Two processes read and augment pictures (flips and rotations) ahead of the network, which runs
without gradients, in channels-last layout; dropout, one linear layer, Adam 1e-3. It needs torch,
torchvision and click. It prints each epoch's validation accuracy.

Keras pads stride-2 convolutions on the right and below only, and has another epsilon in its batch
normalisation; torchvision's network is changed to do the same, so that both start from equal
features. peers.py checks that.

    python -m benchmarks.parts.peer_torch FOLDER --arrays WEIGHTS.npz
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import torchvision
from torchvision import transforms

IMAGE_PX = 224
BATCH_SIZE = 16
DROPOUT = 0.2
LEARNING_RATE = 1e-3
ROTATION_DEGREES = 36
WORKERS = 2
_EPSILON = 1e-3  # of Keras' MobileNetV2


def build_base(arrays: Path) -> Any:
    """Return torchvision's feature layers with base weights from an array file."""
    base = torchvision.models.mobilenet_v2(weights=None).features
    layers = [each for each in base.modules() if not list(each.children())]
    layers = [each for each in layers if not isinstance(each, torch.nn.ReLU6)]
    with np.load(arrays) as stored:
        kernels = [each for each in stored.files if each.endswith("/kernel")]
        scales = [each for each in stored.files if each.endswith("/gamma")]
        convolutions, norms = layers[::2], layers[1::2]
        for name, layer in zip(kernels, convolutions, strict=True):
            order = (2, 3, 0, 1) if layer.groups > 1 else (3, 2, 0, 1)
            layer.weight.data = torch.from_numpy(stored[name].transpose(order).copy())
        for name, layer in zip(scales, norms, strict=True):
            of = name.removesuffix("gamma")
            layer.eps = _EPSILON
            layer.weight.data = torch.from_numpy(stored[name])
            layer.bias.data = torch.from_numpy(stored[f"{of}beta"])
            layer.running_mean = torch.from_numpy(stored[f"{of}moving_mean"])
            layer.running_var = torch.from_numpy(stored[f"{of}moving_variance"])
    for layer in convolutions:
        if layer.stride == (2, 2):
            layer.padding = (0, 0)
            layer.register_forward_pre_hook(
                lambda _, inputs: torch.nn.functional.pad(inputs[0], (0, 1, 0, 1))
            )
    return base.eval().to(memory_format=torch.channels_last)


def train(folder: Path, arrays: Path, *, seed: int, epochs: int) -> None:
    """Train the head and print a line of JSON after each epoch."""
    torch.manual_seed(seed)
    last = [transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)]
    size = transforms.Resize((IMAGE_PX, IMAGE_PX))
    vary = [transforms.RandomHorizontalFlip(), transforms.RandomRotation(ROTATION_DEGREES)]
    settings: dict[str, Any] = {
        "batch_size": BATCH_SIZE,
        "num_workers": WORKERS,
        "persistent_workers": True,
    }
    train_set = torchvision.datasets.ImageFolder(
        str(folder / "train"), transforms.Compose([size, *vary, *last])
    )
    val_set = torchvision.datasets.ImageFolder(
        str(folder / "val"), transforms.Compose([size, *last])
    )
    train_batches = torch.utils.data.DataLoader(train_set, shuffle=True, **settings)
    val_batches = torch.utils.data.DataLoader(val_set, **settings)
    base = build_base(arrays)
    head = torch.nn.Sequential(
        torch.nn.Dropout(DROPOUT), torch.nn.Linear(1280, len(train_set.classes))
    )
    optimizer = torch.optim.Adam(head.parameters(), LEARNING_RATE)

    def features_of(pixels: Any) -> Any:
        with torch.no_grad():
            pixels = pixels.contiguous(memory_format=torch.channels_last)
            return base(pixels).mean((2, 3))

    for epoch in range(epochs):
        head.train()
        for pixels, labels in train_batches:
            loss = torch.nn.functional.cross_entropy(head(features_of(pixels)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        head.eval()
        with torch.no_grad():
            right = sum(
                int((head(features_of(pixels)).argmax(1) == labels).sum())
                for pixels, labels in val_batches
            )
        line = {"epoch": epoch, "val_accuracy": right / len(val_set)}
        click.echo(json.dumps(line))


@click.command(help=(__doc__ or "").replace("\n\n    python", "\n\n\b\n    python"))
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--arrays", type=click.Path(path_type=Path), required=True, help="Base weights.")
@click.option("--seed", default=0, show_default=True, help="Of weights, order, augmentation.")
@click.option("--epochs", default=10, show_default=True, help="Passes over the training images.")
@click.option("--features", type=click.Path(path_type=Path), help="Write those of PIXELS instead.")
@click.option("--pixels", type=click.Path(path_type=Path), help="Array file of scaled pixels.")
def main(
    folder: Path, arrays: Path, seed: int, epochs: int, features: Path | None, pixels: Path | None
) -> None:
    """Train, or compute features to compare scripts by."""
    if features is not None and pixels is not None:
        with torch.no_grad():
            batch = torch.from_numpy(np.load(pixels).transpose(0, 3, 1, 2).copy())
            np.save(features, build_base(arrays)(batch).numpy().transpose(0, 2, 3, 1))
        return
    train(folder, arrays, seed=seed, epochs=epochs)


if __name__ == "__main__":
    main()
