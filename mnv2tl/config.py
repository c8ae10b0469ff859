"""Every setting of a training run, with its default; saved in `run.json`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mnv2tl.data.augment import PRESETS, AugmentConfig
from mnv2tl.data.scan_config import ScanConfig
from mnv2tl.mobilenet import ALPHAS, SIZES_PX
from mnv2tl.scaling import SCALINGS
from mnv2tl.weight_sources import check_source

BATCH_NORMS = ("frozen", "train")
SCHEDULES = ("constant", "cosine")
BEST_BY = ("val_loss", "val_accuracy")
CLASS_WEIGHTS = ("none", "balanced")
RUNTIMES = ("onnxruntime", "keras")
"""What can run the frozen layers, the quickest first."""
TRACKERS = ("tensorboard", "mlflow", "wandb")
"""What can be told of a training."""

ALL_LAYERS = 154
"""How many layers MobileNetV2 has up to the pooling layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Settings of one run, saved beside its checkpoint in `run.json`."""

    data: Path
    """Folder of images, one sub-folder per class."""
    out: Path
    """Run folder that is written."""
    epochs: int = 10
    """Passes over the training images in the first phase."""
    batch_size: int = 16
    """Images per training step."""
    image_px: int = 224
    """Side of the square model input in pixels, one of `mobilenet.SIZES_PX`."""
    alpha: float = 1.0
    """Width of the network, one of `mobilenet.ALPHAS`."""
    weights: str = "imagenet"
    """Base weights: imagenet, imagenet-dogs, none or a path."""
    start_from: Path | None = None
    """Former run whose best weights are the base weights, in place of `weights`."""
    trainable_layers: int = 4
    """Layers of MobileNetV2 that train, counted from its end; 0 trains the new Dense layer only."""
    batch_norm: str = "frozen"
    """What BatchNorm layers among them do, one of `BATCH_NORMS`."""
    dropout: float = 0.2
    """Share of pooled features that a training step drops, 0 to below 1."""
    scaling: str = "symmetric"
    """How pixels are scaled, a key of `scaling.SCALINGS`."""
    augment: AugmentConfig = field(default_factory=lambda: PRESETS["light"])
    """How training images are varied."""
    views: int = 4
    """Augmented views per image; epochs walk through them."""
    seed: int = 0
    """Seed of first weights, order and augmentation; the split has its own."""
    learning_rate: float = 1e-3
    """Step size of Adam."""
    schedule: str = "constant"
    """Course of the step size over a phase, one of `SCHEDULES`."""
    label_smoothing: float = 0.0
    """Share of each target spread over all classes, 0 to below 1."""
    class_weights: str = "none"
    """`balanced` weighs each image by the inverse of its class's share, `none` does not."""
    best_by: str = "val_loss"
    """Which figure names the best epoch, one of `BEST_BY`."""
    patience: int = 0
    """Epochs without a better figure after which a phase ends; 0 never ends early."""
    finetune_layers: int = 20
    """Layers that train in the second phase, counted as `trainable_layers`."""
    finetune_epochs: int = 0
    """Epochs of the second phase; 0 leaves it out."""
    finetune_learning_rate: float = 1e-5
    """Step size of Adam in the second phase."""
    backend: str | None = None
    """Keras backend that trains: jax or tensorflow; None for the one that Keras has."""
    trunk_runtime: str = "auto"
    """What runs the frozen layers: auto, or one of `RUNTIMES`."""
    cache_limit_gb: float = 20.0
    """Size that the feature cache may have on the disk, in 10^9 bytes; 0 caches nothing."""
    trackers: tuple[str, ...] = ()
    """Programs that are told of settings, epochs and result, of `TRACKERS`."""
    scan: ScanConfig = field(default_factory=ScanConfig)
    """How the folder is read and split."""

    def __post_init__(self) -> None:
        """Take text for paths, and refuse values that cannot work."""
        for name in ("data", "out"):
            object.__setattr__(self, name, Path(getattr(self, name)))
        if self.start_from is not None:
            object.__setattr__(self, "start_from", Path(self.start_from))
        check_source(self.weights)
        _one_of("image_px", self.image_px, SIZES_PX)
        _one_of("alpha", self.alpha, ALPHAS)
        _one_of("batch_norm", self.batch_norm, BATCH_NORMS)
        _one_of("scaling", self.scaling, tuple(SCALINGS))
        _one_of("schedule", self.schedule, SCHEDULES)
        _one_of("class_weights", self.class_weights, CLASS_WEIGHTS)
        _one_of("best_by", self.best_by, BEST_BY)
        if self.backend is not None:
            _one_of("backend", self.backend, ("jax", "tensorflow"))
        _one_of("trunk_runtime", self.trunk_runtime, ("auto", *RUNTIMES))
        for name in self.trackers:
            _one_of("trackers", name, TRACKERS)
        for name in ("epochs", "batch_size", "views"):
            _within(name, getattr(self, name), 1, 1_000_000)
        for name in ("trainable_layers", "finetune_layers"):
            _within(name, getattr(self, name), 0, ALL_LAYERS)
        for name in ("patience", "finetune_epochs", "seed"):
            _within(name, getattr(self, name), 0, 2**32 - 1)
        for name in ("dropout", "label_smoothing"):
            _within(name, getattr(self, name), 0.0, 0.999)
        for name in ("learning_rate", "finetune_learning_rate"):
            _within(name, getattr(self, name), 1e-12, 10.0)
        _within("cache_limit_gb", self.cache_limit_gb, 0.0, 1e9)
        if self.finetune_epochs and self.finetune_layers < self.trainable_layers:
            raise ValueError(
                f"finetune_layers must be at least trainable_layers, {self.trainable_layers}, "
                f"got {self.finetune_layers}"
            )

    @property
    def is_augmented(self) -> bool:
        """Whether training images are varied at all."""
        return self.augment != AugmentConfig()

    @property
    def all_epochs(self) -> int:
        """Epochs of both phases."""
        return self.epochs + self.finetune_epochs

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON values; paths as strings, but not where the run lies."""

        def plain(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: plain(item) for key, item in value.items()}
            if isinstance(value, tuple):
                return [plain(item) for item in value]
            return str(value) if isinstance(value, Path) else value

        values: dict[str, Any] = plain(dataclasses.asdict(self))
        values["augment"] = self.augment.to_json()
        del values["out"]  # a run folder may be moved
        return values


RECIPES: dict[str, dict[str, Any]] = {
    "default": {},
    # The classic notebook: x/255, a new augmentation in every epoch, best by validation accuracy.
    "classic": {
        "scaling": "unit",
        "views": 1_000_000,
        "best_by": "val_accuracy",
        "batch_norm": "train",
        "dropout": 0.0,
    },
}
"""Name -> settings that differ from the defaults."""


def _one_of(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {allowed}, got {value!r}")


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} must be from {low} to {high}, got {value}")
