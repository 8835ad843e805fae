"""What every host must do, whatever it is made of."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_sspcab.hosts import FeatureModel, available_applications
from keras_sspcab.layers import SSPCABLayer
from tests.applications.helpers import TENSORFLOW, assert_equal_weights
from tests.hosts import samples, small_host

SHARED = {"anomaly_score", "anomaly_map", "is_anomalous", "raw_score"}


# Those of this package: other tests may register more.
HOSTS = sorted(available_applications())

#: Hosts that are trained on TensorFlow only, here or at all.
TENSORFLOW_ONLY = {
    "draem": "compiling its training step takes minutes on other backends",
    "future_frame": "trains against a discriminator with TensorFlow only",
}


def is_trained_here(name):
    return TENSORFLOW or name not in TENSORFLOW_ONLY


def fit(host, count, **arguments):
    """Trains a host; returns its history, or that of its first stage."""
    objects = host.kind == "objects"
    history = host.fit(
        samples(host, count, for_training=True), verbose=0, **arguments
    )
    return (next(iter(history.values())) if objects else history).history


@pytest.fixture(scope="module", params=HOSTS)
def trained(request):
    """Each host after the five lines, and its history."""
    if not is_trained_here(request.param):
        pytest.skip(TENSORFLOW_ONLY[request.param])
    keras.utils.set_random_seed(0)
    # Stages have a training step each to trace, and that of DRAEM is large.
    # JAX would compile each eager operation by itself, which takes longer.
    has_stages = available_applications()[request.param].kind == "objects"
    is_eager = TENSORFLOW and (has_stages or request.param == "draem")
    host = small_host(request.param, run_eagerly=is_eager)
    history = fit(host, 6, batch_size=3, epochs=1 if has_stages else 2)
    host.calibrate(samples(host, 6, seed=1))
    return request.param, host, history


def test_block_has_its_share_of_the_loss(trained):
    _, host, history = trained
    parts = history["sspcab_loss"]
    assert min(parts) > 0
    if isinstance(host, FeatureModel):
        # There is nothing else to train.
        assert history["loss"] == pytest.approx(parts)
        return
    assert all(
        loss > part for loss, part in zip(history["loss"], parts, strict=True)
    )


def test_shared_outputs(trained):
    _, host, _ = trained
    x = samples(host, 5, seed=2)
    outputs = host.predict(x, verbose=0)
    assert set(outputs) >= SHARED
    assert all(outputs[name].shape == (5,) for name in SHARED - {"anomaly_map"})
    # Of a clip, that of the last frame; of an object, that of its crop.
    pixels = x["appearance"] if host.kind == "objects" else x
    assert outputs["anomaly_map"].shape == (5, *pixels.shape[-3:-1])
    assert outputs["is_anomalous"].dtype == bool
    assert all(np.isfinite(value).all() for value in outputs.values())
    np.testing.assert_array_equal(
        outputs["is_anomalous"],
        outputs["anomaly_score"] >= host.calibration.threshold,
    )


def test_scores_do_not_depend_on_the_batch(trained):
    _, host, _ = trained
    x = samples(host, 5, seed=2)
    together = host.predict(x, verbose=0)
    alone = host.predict(x, batch_size=1, verbose=0)
    # Raw scores of some hosts differ by little more than they are rounded by.
    rounding = 1e-6 * np.abs(together["raw_score"]).max()
    allowed = {"anomaly_score": rounding / host.calibration.score_std}
    for name in SHARED - {"is_anomalous"}:
        np.testing.assert_allclose(
            together[name],
            alone[name],
            rtol=1e-3,
            atol=max(1e-3, allowed.get(name, 0.0)),
            err_msg=name,
        )


def test_file_keeps_everything(trained, tmp_path):
    _, host, _ = trained
    host.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(host)
    assert loaded.get_config() == host.get_config()
    x = samples(host, 6, seed=2)
    expected, result = (m.predict(x, verbose=0) for m in (host, loaded))
    for name in expected:
        np.testing.assert_allclose(
            result[name], expected[name], rtol=1e-3, atol=1e-4, err_msg=name
        )
    # Also of what is there for training only.
    parts = zip(host._flatten_layers(), loaded._flatten_layers(), strict=True)
    for ours, theirs in parts:
        assert_equal_weights(ours.weights, theirs.weights)
    if host.kind == "objects":
        return  # Its optimizers are those of the stages.
    assert_equal_weights(host.optimizer.variables, loaded.optimizer.variables)


def test_block_off():
    for name in HOSTS:
        host = small_host(name, sspcab=None)
        assert host.get_config()["sspcab"] is None
        assert not any(
            isinstance(layer, SSPCABLayer) for layer in host._flatten_layers()
        )


def test_evaluation_measures_the_losses(trained):
    _, host, history = trained
    if host.kind == "objects":
        pytest.skip("the losses are those of its stages")
    results = host.evaluate(
        samples(host, 6), batch_size=3, verbose=0, return_dict=True
    )
    assert set(results) == set(history)
    assert all(np.isfinite(value) for value in results.values())


@pytest.mark.parametrize("name", HOSTS)
def test_scores_are_float32_under_mixed_precision(name):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        host = small_host(name, run_eagerly=True)
        outputs = host(samples(host, 2))
    finally:
        keras.config.set_dtype_policy("float32")
    for key, output in outputs.items():
        dtype = keras.backend.standardize_dtype(output.dtype)
        assert dtype in ("float32", "bool"), key
        assert np.isfinite(ops.convert_to_numpy(output)).all(), key
    layers = host._flatten_layers()
    assert "float16" in {layer.compute_dtype for layer in layers}


@pytest.mark.skipif(not TENSORFLOW, reason="runs without tracing there")
def test_reading_the_metrics_of_a_block_changes_nothing():
    """Each block has its loss, and `sspcab_loss` is their sum."""
    places = ("early", "late")

    class Reader(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            for place in places:
                _ = self.model.get_layer(f"sspcab_{place}").metrics

    def history(*callbacks):
        keras.utils.set_random_seed(0)
        host = small_host("autoencoder", sspcab=places)
        x = samples(host, 6)
        return host.fit(
            x, batch_size=2, verbose=0, shuffle=False, callbacks=[*callbacks]
        ).history

    expected = history()
    assert history(Reader()) == expected
    parts = [expected[f"sspcab_{place}_loss"][0] for place in places]
    assert min(parts) > 0
    assert expected["sspcab_loss"][0] == pytest.approx(sum(parts), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("cutpaste", {0: 0.03, 50: 0.015, 100: 0}),
        ("draem", {80: 1e-4, 81: 2e-5, 90: 2e-5, 91: 4e-6}),
        ("future_frame", {0: 2e-4, 50: 2e-4, 51: 2e-5}),
        ("mnad", {0: 2e-4, 50: 1e-4, 100: 0}),
    ],
)
def test_schedules_of_the_papers(name, rates):
    host = small_host(name)
    schedule = host.default_optimizer(steps=100)._learning_rate
    np.testing.assert_allclose(
        [float(schedule(step)) for step in rates],
        list(rates.values()),
        rtol=1e-5,
        atol=1e-8,
    )
    other = host.default_optimizer(1e-3).learning_rate
    assert float(other) == pytest.approx(1e-3)
