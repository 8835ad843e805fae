import keras
import numpy as np
import pytest

from keras_sspcab.applications import AutoEncoder, CutPaste, Ensemble
from keras_sspcab.scoring import Calibration

SHAPE = (32, 32, 3)


def images(n=6, seed=0):
    return np.random.default_rng(seed).random((n, *SHAPE)).astype("float32")


def autoencoder(**arguments):
    return AutoEncoder(SHAPE, filters=(8, 8, 4), **arguments)


def calibrated(model):
    model.calibrate(images(12))
    return model


@pytest.fixture(scope="module")
def members():
    keras.utils.set_random_seed(0)
    cutpaste = CutPaste(SHAPE, base_width=8)
    cutpaste.fit_scoring(images(12, seed=3))
    return [
        calibrated(model)
        for model in (autoencoder(), autoencoder(smoothing=3), cutpaste)
    ]


@pytest.fixture
def ensemble(members):
    return calibrated(Ensemble(members))


def test_means_of_the_members(members, ensemble):
    x = images(5, seed=1)
    each = [member.predict(x, verbose=0) for member in members]
    outputs = ensemble.predict(x, verbose=0)
    calibration = ensemble.calibration
    np.testing.assert_allclose(
        outputs["raw_score"],
        np.mean([o["anomaly_score"] for o in each], 0),
        rtol=1e-3,
        atol=1e-3,
    )
    np.testing.assert_allclose(
        outputs["anomaly_map"] * calibration.map_std + calibration.map_mean,
        np.mean([o["anomaly_map"] for o in each], 0),
        rtol=1e-3,
        atol=1e-3,
    )
    np.testing.assert_array_equal(
        outputs["is_anomalous"],
        outputs["anomaly_score"] >= calibration.threshold,
    )


def test_is_calibrated_as_a_whole(ensemble):
    scores = ensemble.predict(images(12), verbose=0)["anomaly_score"]
    assert scores.mean() == pytest.approx(0, abs=1e-2)
    assert scores.std() == pytest.approx(1, abs=1e-2)


def test_members_are_copies(members, ensemble):
    assert [type(m) for m in ensemble.members] == [type(m) for m in members]
    assert [m.name for m in members] == ["autoencoder"] * 2 + ["cutpaste"]
    x = images(5, seed=1)
    member = calibrated(autoencoder())
    ensemble = Ensemble([member, *members], Calibration(threshold=1.0))
    before = ensemble.predict(x, verbose=0)["raw_score"]
    for weight in member.weights:
        weight.assign(weight + 1)
    member.calibration = Calibration()
    after = Ensemble.from_config(ensemble.get_config())
    after.set_weights(ensemble.get_weights())
    for model in (ensemble, after):
        np.testing.assert_allclose(
            model.predict(x, verbose=0)["raw_score"], before, rtol=1e-4
        )


def test_file_keeps_everything(ensemble, tmp_path):
    ensemble.save(tmp_path / "ensemble.keras")
    loaded = keras.models.load_model(tmp_path / "ensemble.keras")
    assert isinstance(loaded, Ensemble)
    assert loaded.get_config() == ensemble.get_config()
    x = images(5, seed=1)
    expected = ensemble.predict(x, verbose=0)
    result = loaded.predict(x, verbose=0)
    for name, value in expected.items():
        np.testing.assert_allclose(
            result[name], value, rtol=1e-3, atol=1e-3, err_msg=name
        )


def test_compiled_members_leave_their_optimizers_behind(tmp_path):
    member = autoencoder()
    member.compile(run_eagerly=True)
    member.fit(images(), verbose=0)
    ensemble = Ensemble([calibrated(member)])
    ensemble.save(tmp_path / "ensemble.keras")
    loaded = keras.models.load_model(tmp_path / "ensemble.keras")
    for model in (ensemble, loaded):
        assert not model.members[0].compiled
        assert model.count_params() == member.count_params()


def test_is_not_trained(ensemble):
    with pytest.raises(ValueError, match="train and calibrate its members"):
        ensemble.fit(images())
    with pytest.raises(ValueError, match="train and calibrate its members"):
        ensemble.compile()


def test_bad_members(members):
    with pytest.raises(ValueError, match="at least one member"):
        Ensemble([])
    with pytest.raises(ValueError, match="must be detectors.*Sequential"):
        Ensemble([keras.Sequential()])
    with pytest.raises(ValueError, match="autoencoder has not been calib"):
        Ensemble([*members, autoencoder()])
    other = AutoEncoder((16, 16, 1))
    other.calibration = Calibration(threshold=1.0)
    with pytest.raises(ValueError, match=r"same shape.*\(16, 16, 1\)"):
        Ensemble([*members, other])


@pytest.mark.skipif(
    keras.config.backend() != "tensorflow", reason="exports need TensorFlow"
)
def test_export(ensemble, tmp_path):
    from keras_sspcab.export import export_model

    path = tmp_path / "m.onnx"
    result = export_model(ensemble, path, "onnx", images=images())
    assert result.parity.passes
