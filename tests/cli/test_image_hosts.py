"""The image hosts from the command line."""

import json

import numpy as np
import pytest
from keras import ops

from keras_sspcab.runs.models import build_model, compile_model, load_detector
from keras_sspcab.runs.parsing import load_config

SETTINGS = {
    "draem": ["--set=model.base_width=16", "--set=model.smoothing=3"],
    "cutpaste": ["--set=model.backbone=resnet18", "--set=model.base_width=8"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_from_images_to_metrics(name, images, tmp_path, invoke):
    run = tmp_path / "run"
    options = ["--image-size=32", "--channels=3", "--batch-size=4"]
    invoke(
        *("train", "--model", name, "--data", images, "--run", run),
        *(*options, "--epochs=1", *SETTINGS[name]),
    )
    invoke("evaluate", run)
    metrics = json.loads((run / "metrics.json").read_text())
    assert 0 <= metrics["image_auroc"] <= 1
    assert np.isfinite(metrics["pixel_auroc"])
    detector = load_detector(str(run))
    assert detector.calibration.num_images == 1
    if name == "cutpaste":
        density = detector.get_layer("embedding_score").density
        embeddings = detector.predict(
            np.random.default_rng(0).random((3, 32, 32, 3), "float32"),
            verbose=0,
        )["embedding"]
        mean = ops.convert_to_numpy(density.mean)
        # Fitted to features of unit length, as those of any image.
        assert mean.shape == embeddings.shape[1:]
        assert 0.5 < np.linalg.norm(mean) <= 1


def test_rates_follow_the_schedule_of_the_paper():
    config = load_config(
        None,
        {
            "model.name": "cutpaste",
            "model.base_width": 8,
            "data.image_size": 32,
            "training.epochs": 5,
            "training.batch_size": 4,
            "training.learning_rate": 0.1,
        },
    )
    model = build_model(config)
    compile_model(model, config, num_samples=10)
    optimizer = model.optimizer
    # Three batches in each of five epochs.
    rates = [float(optimizer._learning_rate(step)) for step in (0, 15)]
    np.testing.assert_allclose(rates, [0.1, 0.0], atol=1e-8)
