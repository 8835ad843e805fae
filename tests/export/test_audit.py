import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sspcab import SSPCABLayer
from keras_sspcab.export import export_saved_model
from keras_sspcab.export.audit import (
    audit_saved_model,
    require_finite_constants,
)


def save(function, path, **attributes):
    module = tf.Module()
    for name, value in attributes.items():
        setattr(module, name, value)
    module.infer = tf.function(
        function, input_signature=[tf.TensorSpec((None, 4), name="image")]
    )
    tf.saved_model.save(module, path, {"serving_default": module.infer})
    return audit_saved_model(path)


def test_exports_are_clean(saved_model):
    assert audit_saved_model(saved_model.path) == []


def python_function_in_a_loop(x):
    def sine(row):
        result = tf.py_function(np.sin, [row], tf.float32)
        return tf.ensure_shape(result, (4,))

    return {"y": tf.map_fn(sine, x)}


def gradient(x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(tf.tanh(x))
    return {"y": tape.gradient(y, x)}


def dropout(x):
    return {"y": tf.nn.dropout(x, 0.5)}


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (python_function_in_a_loop, "Python function EagerPyFunc"),
        (gradient, "training operation TanhGrad"),
        (dropout, "random operation"),
    ],
)
def test_what_does_not_belong_is_found(function, problem, tmp_path):
    assert any(problem in line for line in save(function, tmp_path))


def test_variables(tmp_path):
    weight = tf.Variable(tf.ones((4, 2)))
    problems = save(lambda x: {"y": x @ weight}, tmp_path, weight=weight)
    assert any("variable ReadVariableOp" in problem for problem in problems)


def test_losses_that_no_output_needs(tmp_path):
    inputs = keras.Input((1, 2, 2))
    model = keras.Model(inputs, SSPCABLayer()(inputs))
    problems = save(
        lambda x: {"y": model(tf.reshape(x, (-1, 1, 2, 2)))},
        tmp_path,
        model=model,
    )
    assert any("unused operation" in f and "L2Loss" in f for f in problems)


def test_export_refuses_what_the_audit_finds(tmp_path):
    class Noise(keras.layers.Layer):
        def call(self, inputs):
            return inputs + tf.random.uniform(tf.shape(inputs))

    model = keras.Sequential([keras.Input((4,)), Noise()])
    with pytest.raises(ValueError, match="does not belong into inference: ra"):
        export_saved_model(model, tmp_path / "model", check=False)
    assert not list((tmp_path / "model").iterdir())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_constants_must_be_finite(value):
    graph = tf.Graph()
    with graph.as_default():
        # A threshold that nothing reaches, and whole numbers.
        tf.constant(np.inf)
        tf.constant([1, 2])
        tf.constant([0.5, 1.0])
    require_finite_constants(graph.as_graph_def())
    with graph.as_default():
        tf.constant([value], name="bias")
    with pytest.raises(ValueError, match="'bias' are not finite"):
        require_finite_constants(graph.as_graph_def())
