"""A published checkpoint becomes a run like any other."""

import json

import numpy as np
import pytest

from keras_sspcab.applications import DRAEM
from keras_sspcab.runs import Run
from keras_sspcab.runs.models import import_model
from keras_sspcab.runs.parsing import load_config
from tests.applications.test_published import small_draem


@pytest.fixture
def checkpoint(tmp_path):
    arrays, _ = small_draem(
        np.random.default_rng(0), "reconstructive", "authors"
    )
    path = tmp_path / "draem.npz"
    np.savez(path, **arrays)
    return path


def test_a_checkpoint_becomes_a_run(checkpoint, images, tmp_path, invoke):
    run = tmp_path / "run"
    options = ["--data", images, "--image-size", 32, "--run", run]
    given = ["--set", "model.smoothing=3"]
    result = invoke("import-weights", "draem", checkpoint, *options, *given)
    assert "Saved" in result.output
    opened = Run(run)
    assert opened.is_finished
    assert opened.config.data.image_size == (32, 32)
    options = opened.config.model.options
    assert options["base_width"] == 4
    assert options["discriminative_width"] == 2
    assert options["smoothing"] == 3
    model = opened.model
    # As the authors' code does it.
    assert opened.config.data.resize == model.preprocessing.resize == "opencv"
    expected = DRAEM.from_published(checkpoint, image_size=32)
    assert model.calibration.is_calibrated
    for weight, other in zip(
        model.get_weights()[:20], expected.get_weights()[:20], strict=True
    ):
        np.testing.assert_array_equal(weight, other)
    invoke("evaluate", run)
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert 0 <= metrics["image_auroc"] <= 1
    result = invoke("evaluate", run, "--as-published", code=2)
    assert "published with model.smoothing=21" in result.output
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert list(record["published"]) == [str(checkpoint)]


def test_what_is_set_goes_before_what_was_published(checkpoint, images):
    for given in ({}, {"data.resize": "bilinear"}):
        settings = {"model.name": "draem", "data.image_size": 32, **given}
        _, config = import_model(load_config(None, settings), [checkpoint])
        expected = given.get("data.resize", "opencv")
        assert config.data.resize == expected


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("autoencoder", [], "No published checkpoint of AutoEncoder"),
        ("mnad", [], "cannot be made of 1 files"),
        ("cutpaste", [], "no checkpoint of this host"),
        ("draem", ["--set", "model.base_width=8"], "base_width"),
        ("draem", ["--set", "model.sspcab=bottleneck"], "blocks are found"),
        ("draem", ["--channel-order", "rbg"], "--channel-order must be"),
    ],
)
def test_what_does_not_fit_is_told(
    model, options, message, checkpoint, images, tmp_path, invoke
):
    run = tmp_path / "run"
    result = invoke(
        *("import-weights", model, checkpoint, "--data", images),
        *("--image-size", 64, "--run", run, *options),
        code=2,
    )
    assert message in " ".join(result.output.split())
    assert not run.exists()
