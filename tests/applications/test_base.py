import copy
import dataclasses
import inspect
import json
import warnings

import keras
import numpy as np
import pytest

from keras_sspcab.applications import AutoEncoder
from keras_sspcab.hosts import available_applications, get_application
from keras_sspcab.hosts.normal_scores import PixelSample
from keras_sspcab.scoring import Calibration
from keras_sspcab.variants import ImageVariants
from tests.applications.helpers import noise_images, numpy
from tests.hosts import samples, small_host


def images(n=12):
    return noise_images(n, 16, 16, 1)


def model(**arguments):
    result = AutoEncoder(
        **{"input_shape": (16, 16, 1), "filters": (8, 8, 4), **arguments}
    )
    result.compile()
    return result


def test_calibrated_scores_are_standardized_and_flags_follow():
    detector = model()
    normal = images(40)
    calibration = detector.calibrate(normal, quantile=0.9)
    outputs = detector.predict(normal, verbose=0)
    assert outputs["anomaly_score"].mean() == pytest.approx(0, abs=1e-2)
    assert outputs["anomaly_score"].std() == pytest.approx(1, abs=1e-2)
    assert outputs["anomaly_map"].mean() == pytest.approx(0, abs=1e-2)
    assert outputs["is_anomalous"].sum() == 4 - 1
    np.testing.assert_array_equal(
        outputs["is_anomalous"],
        outputs["anomaly_score"] >= calibration.threshold,
    )


def test_calibration_replaces_compiled_constants():
    detector = model()
    detector.calibrate(images())
    first = detector.predict(images(), verbose=0)["anomaly_score"]
    detector.calibration = Calibration(score_std=0.5, threshold=1.0)
    second = detector.predict(images(), verbose=0)
    np.testing.assert_allclose(
        second["anomaly_score"], 2 * second["raw_score"], rtol=1e-5
    )
    assert not np.allclose(first, second["anomaly_score"])


def test_whole_range_flags_no_pixel_when_calibrated_again():
    x = images(20)
    detector = model()
    calibrations = [Calibration()]
    if keras.config.backend() == "tensorflow":
        # Others round in another order, which cannot be undone.
        calibrations.append(Calibration(map_mean=-1e3, map_std=3e-4))
    for calibration in calibrations:
        detector.calibration = calibration
        detector.calibrate(x, quantile=1.0, decision="either")
        assert not detector.predict(x, verbose=0)["is_anomalous"].any()


def test_batches_and_arrays_calibrate_alike():
    detector = model()
    x = images(10)
    from_array = detector.calibrate(x, batch_size=4)
    from_batches = detector.calibrate([x[:4], (x[4:8], "label"), x[8:]])
    # Also that maps come out in another scale the second time.
    assert_alike(from_batches, from_array)


def assert_alike(one, other):
    """Asserts that two calibrations have about the same numbers."""
    values = keras.tree.flatten_with_path(one.to_dict())
    expected = dict(keras.tree.flatten_with_path(other.to_dict()))
    assert [path for path, _ in values] == [*expected]
    for path, value in values:
        if isinstance(value, float):
            value = pytest.approx(value, rel=1e-3, abs=1e-5)
        assert expected[path] == value, path


def test_failed_calibration_keeps_the_old_one():
    detector = model()
    old = detector.calibrate(images())
    for data, message in (
        (images(0), "at least one score"),
        ([], "at least one score"),
        (np.full((2, 16, 16, 1), np.nan, "float32"), "NaN or infinite"),
        ([{"image": images(2)}], "Received: a dict with the keys"),
    ):
        with pytest.raises(ValueError, match=message):
            detector.calibrate(data)
        assert detector.calibration == old
        with pytest.raises(ValueError):
            detector.calibrate(images(), extra_data=data)
        assert detector.calibration == old
    with pytest.raises(ValueError, match="at least one.*12 and 0"):
        detector.calibrate(images(), extra_data=[])


def test_pixels_of_many_maps_are_a_sample_of_all(monkeypatch):
    monkeypatch.setattr("keras_sspcab.hosts.normal_scores.MAX_PIXELS", 1000)
    sample = PixelSample()
    values = np.arange(50 * 2 * 16 * 16)
    for maps in np.split(values.reshape(100, 16, 16), [1, 7, 30, 98]):
        sample.add(maps)
    np.testing.assert_array_equal(sample.result(), values[::27])
    assert len(PixelSample().result()) == 0


def test_uncalibrated_prediction_warns():
    detector = model()
    with pytest.warns(UserWarning, match="has not been calibrated"):
        outputs = detector.predict(images(), verbose=0)
    np.testing.assert_allclose(outputs["anomaly_score"], outputs["raw_score"])
    detector.calibrate(images())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        detector.predict(images(), verbose=0)


def test_own_optimizer_loss_and_metrics():
    detector = AutoEncoder(input_shape=(16, 16, 1))
    detector.compile(
        keras.optimizers.SGD(0.0),
        {"reconstruction": "mae"},
        metrics={"reconstruction": ["mse"]},
    )
    x = images()
    history = detector.fit(x, verbose=0).history
    error = numpy(detector(x)["reconstruction"]) - x
    assert history["loss"][0] - history["sspcab_loss"][0] == pytest.approx(
        np.abs(error).mean(), rel=1e-4
    )
    (mse,) = (history[name] for name in history if name.endswith("mse"))
    assert mse[0] == pytest.approx((error**2).mean(), rel=1e-4)


@pytest.mark.parametrize("steps", [None, 10])
@pytest.mark.parametrize("name", ["autoencoder", "cutpaste", "draem", "mnad"])
def test_a_rate_of_zero_is_one(name, steps):
    host = small_host(name)
    host.compile(learning_rate=0.0, steps=steps)
    assert float(host.optimizer.learning_rate) == 0.0
    host.compile(steps=steps)
    assert float(host.optimizer.learning_rate) > 0.0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_inputs_must_be_finite(value):
    detector = AutoEncoder(input_shape=(16, 16, 1))
    detector.calibrate(images())
    x = images()
    x[1, 2, 3] = value
    for use in (detector.predict, detector.calibrate):
        with pytest.raises(ValueError, match="1 of .* values NaN or infinite"):
            use(x)


@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_values_up_to_255_are_refused(kind):
    detector = AutoEncoder(input_shape=(16, 16, 1))
    detector.compile()
    detector.calibrate(images())
    x = (255 * images()).astype(kind)
    batches = [x[:4], x[4:]]
    for use, data in (
        (detector.fit, x),
        (detector.fit, Batches(x)),
        (detector.calibrate, x),
        (detector.calibrate, batches),
        (detector.predict, x),
        (detector.predict, keras.ops.convert_to_tensor(x)),
        (detector.evaluate, x),
    ):
        with pytest.raises(ValueError, match="Divide 8-bit images by 255"):
            use(data)
    with pytest.raises(ValueError, match="Divide 8-bit images by 255"):
        detector.fit(images(), validation_data=x)
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        dataset = tf.data.Dataset.from_tensor_slices(x).batch(4)
        for data in (dataset, dataset.map(lambda batch: (batch, batch))):
            with pytest.raises(ValueError, match="Divide 8-bit images by 255"):
                detector.fit(data)


def test_calibration_keeps_the_decision_and_sets_it():
    detector = AutoEncoder(input_shape=(16, 16, 1))
    x = images()
    first = detector.calibrate(x, decision="pixels")
    assert detector.calibrate(x).decision == "pixels"
    assert detector.calibrate(x, decision="score").decision == "score"
    peaks = detector.predict(x, verbose=0)["anomaly_map"].max(axis=(1, 2))
    # Few images: beyond the highest of them.
    assert first.peak_threshold > peaks.max()
    middle = float(np.median(peaks))
    detector.calibration = dataclasses.replace(first, peak_threshold=middle)
    flags = detector.predict(x, verbose=0)["is_anomalous"]
    assert flags.tolist() == (peaks >= middle).tolist()
    assert 0 < flags.sum() < len(flags)


def test_registry():
    assert get_application("autoencoder") is AutoEncoder
    for name, application in available_applications().items():
        signature = inspect.signature(application)
        assert signature.parameters["name"].default == name
    with pytest.raises(ValueError, match="no model named 'ae'.*autoencoder"):
        get_application("ae")


class Batches(keras.utils.PyDataset):
    """Batches of four images, as Keras' own data sets give them."""

    def __init__(self, x, y=None):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x) // 4

    def __getitem__(self, index):
        rows = slice(4 * index, 4 * index + 4)
        x = self.x[rows]
        return (x,) if self.y is None else (x, self.y[rows])


def test_cloning_is_refused_and_a_copy_is_named():
    detector = model()
    with pytest.raises(ValueError, match=r"AutoEncoder.from_config\(model"):
        keras.models.clone_model(detector)
    other = AutoEncoder.from_config(detector.get_config())
    other.set_weights(detector.get_weights())
    x = images(3)
    np.testing.assert_array_equal(
        numpy(other(x)["raw_score"]), numpy(detector(x)["raw_score"])
    )


def test_config_is_the_models_own():
    """A dict that is changed later leaves the model and its config alone."""
    options = {"loss_weight": 0.2, "loss": {"class_name": "MeanSquaredError"}}
    options["loss"]["config"] = {"reduction": "sum"}
    detector = model(sspcab="late", sspcab_options=options)
    expected = copy.deepcopy(options)
    options["loss"]["config"]["reduction"] = "none"
    options["loss_weight"] = 0.9
    config = detector.get_config()
    assert config["sspcab_options"] == expected
    config["sspcab_options"]["loss"]["config"].clear()
    assert detector.get_config()["sspcab_options"] == expected
    loaded = AutoEncoder.from_config(detector.get_config())
    assert loaded.get_layer("sspcab_late").loss_weight == 0.2


def test_file_keeps_the_options_of_the_loss(tmp_path):
    # Far below the errors, which are squared up to there.
    options = {"loss": keras.losses.Huber(delta=1e-5)}
    detector = model(sspcab="late", sspcab_options=options)
    detector.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for host in (detector, loaded):
        host(images(2))
    term, expected = (float(sum(host.losses)) for host in (loaded, detector))
    assert term == pytest.approx(expected)


@pytest.mark.parametrize("name", ["autoencoder", "cutpaste", "mnad", "padim"])
def test_images_held_out_of_training(name):
    """`validation_split` keeps the last images, of which nothing is learned."""
    seen = {}

    def watched(host):
        fit_scoring = host.fit_scoring

        def fit(data):
            seen["data"] = data
            fit_scoring(data)

        host.fit_scoring = fit
        return host

    host = watched(small_host(name, run_eagerly=True))
    x = samples(host, 6)
    history = host.fit(x, validation_split=0.34, batch_size=3, verbose=0)
    assert {"loss", "val_loss"} <= set(history.history)
    np.testing.assert_array_equal(seen["data"], x[:3])
    if name == "padim":
        # Which has no use for targets.
        labels = np.zeros(6, "float32")
        host.fit(x, labels, validation_split=0.34, verbose=0)
        np.testing.assert_array_equal(seen["data"], x[:3])
    with pytest.raises(ValueError, match="leaves no image"):
        host.fit(x, validation_split=0.99, verbose=0)
    with pytest.raises(ValueError, match="Pass `validation_data`"):
        host.fit(Batches(x), validation_split=0.5, verbose=0)


class Endless(Batches):
    """Repeats the same batches without end."""

    num_batches = None

    def __getitem__(self, index):
        return super().__getitem__(index % len(self))


def endless(x, kind):
    if kind == "keras":
        return Endless(x)
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(x).batch(4).repeat()


@pytest.mark.parametrize(
    ("name", "kind"),
    [("cutpaste", "tensorflow"), ("mnad", "keras"), ("padim", "tensorflow")],
)
def test_scoring_is_fitted_to_the_steps_of_an_epoch(name, kind):
    host = small_host(name, run_eagerly=True)
    x = samples(host, 8)
    seen = []
    host.fit_scoring = lambda data: seen.extend(
        numpy(images) for images, _ in host.input_batches(data)
    )
    with pytest.raises(ValueError, match="without an end.*steps_per_epoch"):
        host.fit(endless(x, kind), verbose=0)
    assert not int(host.optimizer.iterations)
    history = host.fit(endless(x, kind), steps_per_epoch=2, verbose=0).history
    assert len(history["loss"]) == 1
    np.testing.assert_array_equal(np.concatenate(seen), x)


def test_nothing_to_train_and_no_end():
    host = small_host("padim", sspcab=None)
    x = samples(host, 8)
    host.fit(endless(x, "tensorflow"), steps_per_epoch=2)
    one = host.calibrate()
    host.fit(x)
    assert_alike(one, host.calibrate())
    # Kept in memory, as nothing else reads it.
    host.fit(iter([x[:4], x[4:]]))
    assert_alike(one, host.calibrate())


@pytest.mark.parametrize("name", ["cutpaste", "padim"])
def test_what_can_be_read_once_is_refused_before_the_training(name):
    host = small_host(name)
    x = samples(host, 4)
    with pytest.raises(ValueError, match=r"only once. Give an array, a tf.da"):
        host.fit((batch for batch in [x]), verbose=0)
    assert not int(host.optimizer.iterations)


@pytest.mark.parametrize("name", ["autoencoder", "cutpaste"])
def test_size_of_the_batches_to_validate_with(name):
    host = small_host(name, run_eagerly=True)
    batches = []
    callback = keras.callbacks.LambdaCallback()
    callback.on_test_batch_end = lambda batch, logs=None: batches.append(batch)
    x = samples(host, 7)
    for options, count in (
        ({"batch_size": 2}, 2),
        ({"batch_size": 2, "validation_batch_size": 1}, 4),
    ):
        batches.clear()
        host.fit(
            x[:3],
            validation_data=x[3:],
            callbacks=[callback],
            verbose=0,
            **options,
        )
        assert len(batches) == count


class Pairs(Batches):
    """Batches of four images and their classes, in lists."""

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return [x, {"logits": y}]


@pytest.mark.parametrize(("name", "is_paired"), [("mnad", 0), ("cutpaste", 1)])
def test_a_tuple_of_one_is_no_pair(name, is_paired):
    data = pytest.importorskip("tensorflow").data.Dataset
    host = small_host(name, run_eagerly=True)
    x = samples(host, 4)
    seen = []
    host.fit_scoring = lambda data: seen.extend(
        numpy(images) for images, _ in host.input_batches(data)
    )
    alone = data.from_tensor_slices((x,)).batch(2)
    history = host.fit(alone, validation_data=alone, verbose=0).history
    assert np.isfinite(history["val_loss"]).all()
    np.testing.assert_array_equal(np.concatenate(seen), x)
    if is_paired:
        seen.clear()
        host.fit(Pairs(x, np.zeros(4, "int32")), verbose=0)
        assert not seen


@pytest.mark.slow
@pytest.mark.parametrize("name", ["autoencoder", "cutpaste", "mnad", "padim"])
def test_data_sets_of_keras(name):
    host = small_host(name, run_eagerly=True)
    x = samples(host, 8)
    history = host.fit(
        Batches(x), validation_data=Batches(x), epochs=2, verbose=0
    )
    assert len(history.history["loss"]) == 2
    assert np.isfinite(history.history["val_loss"]).all()
    assert_alike(host.calibrate(Batches(x)), host.calibrate(x, batch_size=4))
    np.testing.assert_allclose(
        host.predict(Batches(x), verbose=0)["anomaly_score"],
        host.predict(x, batch_size=4, verbose=0)["anomaly_score"],
        rtol=1e-5,
    )


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`")
@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("autoencoder", "int8"),
        ("autoencoder", "int4"),
        ("autoencoder", "float8"),
        ("background_agnostic", "int8"),
        ("cutpaste", "int4"),
    ],
)
def test_file_of_a_quantized_host(name, mode, tmp_path):
    host = small_host(name)
    x = samples(host, 4)
    host.quantize(mode)
    assert host.get_config()["quantization"]
    expected = host.predict_on_batch(x)
    host.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    result = loaded.predict_on_batch(x)
    for key, output in expected.items():
        np.testing.assert_array_equal(result[key], output, err_msg=key)
    assert [layer.quantization_mode for layer in loaded._flatten_layers()] == [
        layer.quantization_mode for layer in host._flatten_layers()
    ]


def test_file_keeps_what_is_frozen(tmp_path):
    detector = model()
    detector.get_layer("encoder_conv1").trainable = False
    detector.compile()
    detector.fit(images(), verbose=0)
    kept = numpy(detector.get_layer("encoder_conv1").kernel)
    detector.save(tmp_path / "model.keras")
    # Names that Keras counts are others by now.
    model()
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert [v.path for v in loaded.trainable_variables] == [
        v.path for v in detector.trainable_variables
    ]
    assert int(loaded.optimizer.iterations) == 1
    loaded.fit(images(), verbose=0)
    layer = loaded.get_layer("encoder_conv1")
    np.testing.assert_array_equal(numpy(layer.kernel), kept)
    layer.trainable = True
    again = AutoEncoder.from_config(loaded.get_config())
    assert len(again.trainable_variables) == len(model().trainable_variables)


def test_all_of_it_may_be_frozen():
    detector = model()
    detector.trainable = False
    copied = AutoEncoder.from_config(detector.get_config())
    assert not copied.trainable
    assert not copied.trainable_variables
    # A backbone is frozen from the start, and may be thawed.
    patches = small_host("patchcore")
    assert not patches.get_layer("backbone").trainable
    patches.get_layer("backbone").trainable = True
    copied = type(patches).from_config(patches.get_config())
    assert len(copied.trainable_variables) == len(patches.trainable_variables)
    assert copied.trainable_variables


def test_variants_of_images_are_in_the_file():
    detector = small_host("padim")
    assert "variants" not in detector.get_config()
    detector.variants = ImageVariants(symmetric=("rotate",), brightness=0.1)
    config = json.loads(json.dumps(detector.get_config()))
    assert type(detector).from_config(config).variants == detector.variants


def test_a_host_may_pass_its_arguments_on():
    class PassedOn(AutoEncoder):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)

    class Settled(PassedOn):
        def __init__(self, *args, filters=(4, 4, 2), **kwargs):
            super().__init__(*args, filters=filters, **kwargs)

    for host in (PassedOn, Settled):
        for made in (host((16, 16, 1), None), host(input_shape=(16, 16, 1))):
            copied = host.from_config(made.get_config())
            assert copied.arguments == made.arguments
            assert copied.input_shape == made.input_shape == (None, 16, 16, 1)


@pytest.mark.parametrize("name", ["autoencoder", "mnad", "hf2vad"])
def test_weights_of_samples_need_targets(name):
    host = small_host(name)
    x = samples(host, 4)
    with pytest.raises(ValueError, match="`sample_weight` would count for"):
        host.fit(x, sample_weight=np.zeros(4), verbose=0)


def test_endless_data_do_not_calibrate():
    data = pytest.importorskip("tensorflow").data.Dataset
    endless = data.from_tensor_slices(images()).batch(4).repeat()
    with pytest.raises(ValueError, match="no end"):
        model().calibrate(endless)


def test_file_keeps_the_precision(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        detector = model()
    finally:
        keras.config.set_dtype_policy("float32")
    x = images(4)
    expected = detector.predict_on_batch(x)
    detector.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.dtype_policy.name == "mixed_bfloat16"
    assert keras.config.dtype_policy().name == "float32"
    np.testing.assert_array_equal(
        loaded.predict_on_batch(x)["raw_score"], expected["raw_score"]
    )


def test_file_keeps_the_precision_of_each_layer(tmp_path):
    policies = keras.dtype_policies.DTypePolicyMap("float32")
    policies["encoder_conv1"] = "bfloat16"
    keras.config.set_dtype_policy(policies)
    try:
        detector = model()
    finally:
        keras.config.set_dtype_policy("float32")
    detector.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for host in (detector, loaded):
        assert host.get_layer("encoder_conv1").compute_dtype == "bfloat16"
        assert host.get_layer("encoder_conv2").compute_dtype == "float32"
    assert keras.config.dtype_policy().name == "float32"
