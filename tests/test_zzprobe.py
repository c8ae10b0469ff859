from __future__ import annotations
from pathlib import Path
import pytest
def test_train(tiny_folder: Path, tmp_path: Path, backend: str) -> None:
    """x"""
    from mnv2tl.backend import use_backend
    use_backend(backend)
    from mnv2tl.config import TrainConfig
    from mnv2tl.train import train
    from mnv2tl.evaluate import evaluate_run
    run = train(TrainConfig(data=tiny_folder, out=tmp_path/"run", weights="none", alpha=0.35, image_px=96, epochs=2, backend=backend, finetune_epochs=1, tensorboard=True))
    print(run.info["val_accuracy"], evaluate_run(run).summary())
    import keras
    m = keras.models.load_model(run.best_path)
