import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sspcab import SSPCABLayer
from keras_sspcab.applications import AutoEncoder
from keras_sspcab.export.inference import Inference, fastest_form
from tests.export.conftest import assert_same


def test_unknown_output(detector):
    with pytest.raises(ValueError, match=r"no output named \['map'\].*raw_sc"):
        Inference(detector, outputs=["map"])
    with pytest.raises(ValueError, match="At least one output"):
        Inference(detector, outputs=[])


def test_nothing_but_inference_in_the_graph(detector):
    frozen = Inference(detector).freeze()
    assert not list(frozen.function.variables)
    operations = frozen.function.graph.get_operations()
    assert "Conv2D" in {op.type for op in operations}
    assert not [op for op in operations if "Var" in op.type]
    # The block's loss would be a second square beside that of the error map.
    (square,) = (op.name for op in operations if op.type.startswith("Squar"))
    assert "error_map" in square


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_computes_in_float32(
    make_mixed_detector, fingerprint, policy
):
    model = make_mixed_detector(policy)
    before = fingerprint(model)
    assert policy in before["policies"]
    frozen = Inference(model).freeze()
    dtypes = {
        tensor.dtype
        for op in frozen.function.graph.get_operations()
        for tensor in op.outputs
    }
    assert not dtypes & {tf.float16, tf.bfloat16}
    assert_same(before, fingerprint(model))
    # It still computes in 16 bits itself.
    layer = model.get_layer("sspcab_late")
    assert layer(np.ones((1, 8, 8, 8), "float32")).dtype != tf.float32


def test_uncalibrated(textures):
    model = AutoEncoder((32, 32, 1))
    with pytest.raises(ValueError, match="has not been calibrated"):
        Inference(model)
    inference = Inference(model, allow_uncalibrated=True)
    results = inference.freeze()(tf.constant(textures["test"]))
    assert not results["is_anomalous"].numpy().any()


def test_all_forms_agree(make_detector, textures):
    inference = Inference(make_detector(sspcab_options={"kernel_size": 3}))
    images = tf.constant(textures["test"])
    results = [
        inference.freeze(form=form)(images)["anomaly_score"].numpy()
        for form in ("dilated", "stacked", "shifted", "masked")
    ]
    np.testing.assert_allclose(results[1:], [results[0]] * 3, atol=1e-3)


def test_fastest_form():
    def model(*sizes):
        inputs = x = keras.Input((16, 16, 4))
        for size in sizes:
            x = SSPCABLayer(kernel_size=size)(x)
        return keras.Model(inputs, x)

    assert fastest_form(model(1, 1)) == "dilated"
    assert fastest_form(model(1, 1), integer=True) == "dilated"
    assert fastest_form(model(1, 2)) == "shifted"
    assert fastest_form(model(1, 2), integer=True) == "stacked"


def test_names_are_made_unique_and_plain():
    inputs = {name: keras.Input((4,), name=name) for name in ("a-b", "a_b")}
    x = keras.layers.Concatenate()(list(inputs.values()))
    model = keras.Model(
        inputs,
        [
            keras.layers.Dense(2, name="left.side")(x),
            keras.layers.Dense(3, name="right")(x),
        ],
    )
    inference = Inference(model)
    assert inference.input_names == ("a_b", "a_b_1")
    assert inference.output_names == ("left_side", "right")
    ones, twos = np.ones((2, 4), "float32"), np.full((2, 4), 2, "float32")
    expected = model.predict({"a-b": ones, "a_b": twos}, verbose=0)
    for results in (
        inference.predict(a_b=ones, a_b_1=twos),
        inference.freeze()(tf.constant(ones), tf.constant(twos)),
    ):
        np.testing.assert_allclose(results["left_side"], expected[0], rtol=1e-5)
        np.testing.assert_allclose(results["right"], expected[1], rtol=1e-5)


def test_image_size_must_fit(detector):
    assert Inference(detector, image_size=(32, 32)).image_size() == (32, 32)
    with pytest.raises(ValueError, match="built for images of 32 x 32"):
        Inference(detector, image_size=(64, 32))
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="for models with one input, of im"):
        Inference(model, image_size=(8, 8))


def test_models_without_known_inputs():
    class Subclassed(keras.Model):
        def call(self, inputs):
            return inputs

    for model in (Subclassed(), keras.Sequential([keras.layers.Dense(2)])):
        with pytest.raises(ValueError, match="its inputs are unknown"):
            Inference(model)
    with pytest.raises(ValueError, match="must be a Keras model"):
        Inference("model.keras")


def test_too_large(monkeypatch, detector):
    monkeypatch.setattr("keras_sspcab.export.inference._MAX_WEIGHT_BYTES", 1000)
    with pytest.raises(ValueError, match="less than 2 GB"):
        Inference(detector)


def test_other_backends(monkeypatch, detector):
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(ValueError, match="Exports need the TensorFlow backend"):
        Inference(detector)
