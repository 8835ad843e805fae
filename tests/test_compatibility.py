"""Models and runs that earlier versions have written."""

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

from keras_sspcab.cli import app
from keras_sspcab.preprocessing import Preprocessing
from tests.hosts import small_host

FIXTURES = Path(__file__).parent / "fixtures"


def invoke(*arguments):
    result = CliRunner().invoke(
        app, list(map(str, arguments)), catch_exceptions=False
    )
    assert result.exit_code == 0, result.output


def test_a_model_with_the_block_predicts_and_trains_as_before():
    model = keras.models.load_model(FIXTURES / "sequential.keras")
    before = np.load(FIXTURES / "sequential.npz")
    np.testing.assert_allclose(
        model.predict(before["x"], verbose=0), before["y"], atol=1e-5
    )
    losses = model.evaluate(before["x"], before["x"], verbose=0)
    np.testing.assert_allclose(losses, before["loss"], rtol=1e-4)
    model.fit(before["x"], before["x"], verbose=0)


@pytest.fixture(params=["image", "video"])
def run(request, tmp_path):
    """A run of an earlier version, and its data."""
    if request.param == "video":
        pytest.importorskip("cv2")
    run = tmp_path / "run"
    shutil.copytree(FIXTURES / f"{request.param}_run", run)
    return run, FIXTURES / f"{request.param}s"


def test_a_run_is_evaluated_as_before(run):
    run, data = run
    before = json.loads((run / "metrics.json").read_text())
    invoke("evaluate", run, "--data", data)
    after = json.loads((run / "metrics.json").read_text())
    numbers = {k: v for k, v in before.items() if isinstance(v, (int, float))}
    assert len(numbers) > 4
    for name, value in numbers.items():
        assert after[name] == pytest.approx(value, abs=1e-4), name


def test_a_run_is_reported_without_a_new_evaluation(run):
    run, data = run
    # Reports read the pictures where the evaluation has found them.
    for path in (run / "predictions/scores.csv", run / "run.json"):
        text = path.read_text().replace('"root": "', f'"root": "{data.parent}/')
        path.write_text(text.replace("\nimages/", f"\n{data}/"))
    invoke("report", run)
    assert (run / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("name", "method"), [("autoencoder", "bilinear"), ("hf2vad", "opencv")]
)
def test_models_from_before_the_choice_are_resized_as_then(name, method):
    model = small_host(name)
    config = model.get_config()
    for known in ({"white_level": 4095}, {}):
        config["preprocessing"] = known
        loaded = type(model).from_config(dict(config))
        assert loaded.preprocessing == Preprocessing(**known, resize=method)
