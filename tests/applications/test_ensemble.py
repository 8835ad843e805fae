import keras
import numpy as np
import pytest

from keras_sspcab.applications import AutoEncoder, CutPaste, Ensemble
from keras_sspcab.scoring import Calibration
from tests.applications.helpers import noise_images
from tests.hosts import small_host

SHAPE = (32, 32, 3)


def autoencoder(**arguments):
    return AutoEncoder(SHAPE, filters=(4, 4, 4), **arguments)


def calibrated(model):
    model.calibrate(noise_images(12))
    return model


@pytest.fixture(scope="module")
def members():
    keras.utils.set_random_seed(0)
    compiled = autoencoder()
    compiled.compile(run_eagerly=True)
    cutpaste = CutPaste(SHAPE, base_width=2)
    cutpaste.fit_scoring(noise_images(12, seed=3))
    return [calibrated(compiled), calibrated(cutpaste)]


@pytest.fixture(scope="module")
def ensemble(members):
    return calibrated(Ensemble(members))


def test_means_of_the_members(members, ensemble):
    x = noise_images(12)
    each = [member.predict(x, verbose=0) for member in members]
    outputs = ensemble.predict(x, verbose=0)
    calibration = ensemble.calibration
    raw_map = outputs["anomaly_map"] * calibration.map_std
    for result, name in (
        (outputs["raw_score"], "anomaly_score"),
        (raw_map + calibration.map_mean, "anomaly_map"),
    ):
        expected = np.mean([o[name] for o in each], 0)
        np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-3)
    # Calibrated as a whole.
    assert outputs["anomaly_score"].mean() == pytest.approx(0, abs=1e-2)
    assert outputs["anomaly_score"].std() == pytest.approx(1, abs=1e-2)


def test_members_are_copies_without_optimizers(members):
    assert [m.name for m in members] == ["autoencoder", "cutpaste"]
    member = calibrated(autoencoder())
    ensemble = Ensemble([member, *members], Calibration(threshold=1.0))
    assert [type(m) for m in ensemble.members[1:]] == [type(m) for m in members]
    assert members[0].compiled
    assert not any(m.compiled for m in ensemble.members)
    x = noise_images(5, seed=1)
    before = ensemble.predict(x, verbose=0)["raw_score"]
    for weight in member.weights:
        weight.assign(weight + 1)
    member.calibration = Calibration()
    np.testing.assert_array_equal(
        ensemble.predict(x, verbose=0)["raw_score"], before
    )


def test_file_keeps_everything(ensemble, tmp_path):
    ensemble.save(tmp_path / "ensemble.keras")
    loaded = keras.models.load_model(tmp_path / "ensemble.keras")
    assert isinstance(loaded, Ensemble)
    assert loaded.get_config() == ensemble.get_config()
    x = noise_images(5, seed=1)
    result = loaded.predict(x, verbose=0)
    for name, value in ensemble.predict(x, verbose=0).items():
        np.testing.assert_allclose(
            result[name], value, rtol=1e-3, atol=1e-3, err_msg=name
        )


def test_is_not_trained(ensemble):
    with pytest.raises(ValueError, match="train and calibrate its members"):
        ensemble.fit(noise_images())
    with pytest.raises(ValueError, match="train and calibrate its members"):
        ensemble.compile()


def test_bad_members(members):
    with pytest.raises(ValueError, match="at least one member"):
        Ensemble([])
    with pytest.raises(ValueError, match="must be detectors.*Sequential"):
        Ensemble([keras.Sequential()])
    objects = small_host("object_autoencoder")
    with pytest.raises(
        ValueError, match="images or clips.*dicts of appearance"
    ):
        Ensemble([objects])
    with pytest.raises(ValueError, match="autoencoder has not been calib"):
        Ensemble([*members, autoencoder()])
    other = AutoEncoder((16, 16, 1), calibration=Calibration(threshold=1.0))
    with pytest.raises(ValueError, match=r"same shape.*\(16, 16, 1\)"):
        Ensemble([*members, other])
