import keras
import numpy as np
import pytest
from keras import ops

from keras_sspcab.applications import HF2VAD
from keras_sspcab.layers import SSPCABLayer

TENSORFLOW = keras.config.backend() == "tensorflow"

SMALL = {
    "input_shape": (3, 16, 16, 1),
    "root_width": 2,
    "num_slots": 8,
    "base_width": 2,
}


def small(**arguments):
    return HF2VAD(**{**SMALL, **arguments})


def numpy(x):
    return ops.convert_to_numpy(x).astype("float64")


def cubes(count=4, seed=0, frames=3):
    rng = np.random.default_rng(seed)
    return {
        "appearance": rng.random((count, frames, 16, 16, 1), "float32"),
        "motion": rng.normal(size=(count, frames, 16, 16, 2)).astype("float32"),
    }


def stage(model, name, **arguments):
    """A compiled stage."""
    found = {s.name: s for s in model.training_stages()}[name]
    found.compile(
        **{"run_eagerly": TENSORFLOW, "jit_compile": False, **arguments}
    )
    return found


def losses_of(model, name, x):
    return stage(model, name).evaluate(x, verbose=0, return_dict=True)


def values_of(layer):
    return [numpy(weight) for weight in layer.weights]


def moved(layer, before):
    return max(
        np.abs(numpy(weight) - value).max()
        for weight, value in zip(layer.weights, before, strict=True)
    )


# === Networks ===


def test_parameter_counts():
    model, without = HF2VAD(), HF2VAD(sspcab=None)
    networks = without.networks
    # Kept apart from the moments that are not trained.
    assert networks["vunet"].count_params() == 8_990_668
    memory = networks["memory_autoencoder"]
    trained = sum(int(np.prod(w.shape)) for w in memory.trainable_weights)
    assert trained == 2_908_578 + 57_344_000
    # The block has 4,516 in the place of 9,248.
    assert without.count_params() - model.count_params() == 9_248 - 4_516
    both = HF2VAD(sspcab=("memory", "decoder"))
    assert both.count_params() - model.count_params() == sum(
        # To the decoder it is added: corners with a bias each, attention.
        (4 * (64 * 64 + 64), 2 * 64 * 8, 64 + 8)
    )


def blocks(model):
    return {
        layer.name: layer
        for layer in model._flatten_layers()
        if isinstance(layer, SSPCABLayer)
    }


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ("memory", {"sspcab_memory"}),
        ("decoder", {"sspcab_decoder"}),
        (("memory", "decoder"), {"sspcab_memory", "sspcab_decoder"}),
        (None, set()),
    ],
)
def test_places_of_the_block(places, expected):
    found = blocks(small(sspcab=places))
    assert set(found) == expected
    assert all(block.loss_weight == 0.01 for block in found.values())


# === Scores ===


def test_scores_follow_from_the_networks():
    model, x = small(prediction_score_weight=0.5), cubes(5)
    model.fit_scoring(cubes(20, seed=1))
    outputs = {k: numpy(v) for k, v in model.predict_on_batch(x).items()}
    memory = model.networks["memory_autoencoder"]
    rebuilt = np.stack(
        [
            numpy(memory(x["motion"][:, i])["reconstruction"])
            for i in range(1, 3)
        ],
        axis=1,
    )
    np.testing.assert_allclose(
        outputs["flow_reconstruction"], rebuilt, atol=1e-5
    )
    predicted = numpy(
        model.networks["vunet"](
            {
                "frames": np.concatenate(
                    [x["appearance"][:, i] for i in range(2)], -1
                ),
                "flows": np.concatenate(
                    [rebuilt[:, i] for i in range(2)], -1
                ).astype("float32"),
            }
        )["prediction"]
    )
    np.testing.assert_allclose(outputs["prediction"], predicted, atol=1e-5)
    flow_error = ((rebuilt - x["motion"][:, 1:]) ** 2).sum((1, 2, 3, 4))
    np.testing.assert_allclose(outputs["flow_error"], flow_error, rtol=1e-4)
    error = ((predicted - x["appearance"][:, -1]) ** 2).sum((1, 2, 3))
    np.testing.assert_allclose(outputs["prediction_error"], error, rtol=1e-4)
    normal = model.predict_on_batch(cubes(20, seed=1))
    expected = 0.0
    for name, value, weight in (
        ("flow_error", flow_error, 1.0),
        ("prediction_error", error, 0.5),
    ):
        seen = numpy(normal[name])
        expected = expected + weight * (value - seen.mean()) / seen.std()
    np.testing.assert_allclose(outputs["raw_score"], expected, atol=1e-3)
    total = outputs["anomaly_map"].sum((1, 2)) + model.empty_score
    np.testing.assert_allclose(total, expected, atol=1e-2)
    assert model.empty_score < expected.min()


def test_first_flow_is_not_used():
    model, x = small(), cubes()
    before = model.predict_on_batch(x)
    x["motion"][:, 0] += 5
    after = model.predict_on_batch(x)
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])


# === Stages ===


def test_losses_of_the_memory():
    model, x = small(), cubes()
    results = losses_of(model, "memory", x)
    flow = x["motion"][:, -1]
    outputs = model.networks["memory_autoencoder"](flow)
    error = np.mean((numpy(outputs["reconstruction"]) - flow) ** 2)
    entropy = numpy(outputs["entropy"]).mean()
    assert results["flow_loss"] == pytest.approx(error, rel=1e-3)
    assert results["entropy_loss"] == pytest.approx(entropy, rel=1e-3)
    assert results["sspcab_loss"] > 0
    assert results["loss"] == pytest.approx(
        error + 2e-4 * entropy + results["sspcab_loss"], rel=1e-3
    )


def test_losses_of_the_prediction():
    model, x = small(gradient_weight=0.5), cubes()
    results = losses_of(model, "prediction", x)
    outputs = model(x)
    target = x["appearance"][:, -1]
    difference = numpy(outputs["prediction"]) - target
    assert results["prediction_loss"] == pytest.approx(
        np.mean(difference**2), rel=1e-3
    )
    assert results["loss"] == pytest.approx(
        results["prediction_loss"]
        + 0.5 * results["gradient_loss"]
        + results["divergence_loss"],
        rel=1e-3,
    )
    # The memories are fixed, and so is their block.
    assert "sspcab_loss" not in results


def test_losses_of_both():
    model, x = small(entropy_weight=0.25), cubes()
    results = losses_of(model, "joint", x)
    rebuilt = numpy(model(x)["flow_reconstruction"])
    flows = x["motion"][:, 1:]
    assert results["flow_loss"] == pytest.approx(
        np.mean((rebuilt - flows) ** 2), rel=1e-3
    )
    memory = model.networks["memory_autoencoder"]
    entropies = [numpy(memory(flows[:, i])["entropy"]) for i in range(2)]
    assert results["entropy_loss"] == pytest.approx(
        np.mean(entropies), rel=1e-3
    )
    parts = {
        name: results[f"{name}_loss"]
        for name in ("flow", "prediction", "gradient", "divergence")
    }
    assert results["loss"] == pytest.approx(
        sum(parts.values())
        + 0.25 * results["entropy_loss"]
        + results["sspcab_loss"],
        rel=1e-3,
    )
    if keras.config.backend() == "jax":
        return  # Keras drops the first term of a layer that is used twice.
    # The mean over the flows, not their sum.
    terms = []
    for i in range(2):
        memory(flows[:, i])
        terms.append(float(sum(memory.losses)))
    assert results["sspcab_loss"] == pytest.approx(np.mean(terms), rel=1e-3)


@pytest.mark.parametrize("name", ["prediction", "joint"])
def test_latents_are_drawn_in_training_alone(name):
    """Also where the memories before run as in inference."""
    found, x = stage(small(), name), cubes()

    def predictions(training):
        return [
            numpy(found(x, training=training)["prediction"]) for _ in range(2)
        ]

    one, other = predictions(training=False)
    np.testing.assert_array_equal(one, other)
    one, other = predictions(training=True)
    assert np.abs(one - other).max() > 0


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("memory", {"memory_autoencoder"}),
        ("prediction", {"vunet"}),
        ("joint", {"memory_autoencoder", "vunet"}),
    ],
)
def test_a_stage_trains_what_it_should(name, changed):
    model, x = small(), cubes()
    before = {n: values_of(part) for n, part in model.networks.items()}
    stage(model, name, learning_rate=0.01).fit(x, verbose=0)
    for part, network in model.networks.items():
        # Neither weights nor moving statistics.
        assert (moved(network, before[part]) > 0) == (part in changed), part
    if "memory_autoencoder" in changed:
        # Also those before the memories.
        memory = model.networks["memory_autoencoder"]
        for weight, old in zip(
            memory.weights, before["memory_autoencoder"], strict=True
        ):
            if weight.name in ("moving_mean", "moving_variance", "kernel"):
                assert np.abs(numpy(weight) - old).max() > 0, weight.path


def test_schedules():
    model = small(learning_rates=(1e-3, 2e-3, 3e-3))
    for number, found in enumerate(model.training_stages(), 1):
        found.compile(steps=80)
        schedule = found.optimizer._learning_rate
        assert schedule.boundaries == [50]
        np.testing.assert_allclose(
            schedule.values, [number * 1e-3, 0.8 * number * 1e-3]
        )
    stages = HF2VAD(**SMALL).training_stages()
    assert [s.epochs for s in stages] == [80, 80, 80]
    assert [s.batch_size for s in stages] == [256, 128, 128]
    assert [s._rate for s in stages] == [1e-4, 1e-4, 8e-5]


@pytest.mark.skipif(not TENSORFLOW, reason="resumes on TensorFlow only")
def test_training_is_resumed(tmp_path):
    import tensorflow as tf

    from keras_sspcab.training import train

    dataset = tf.data.Dataset.from_tensor_slices(cubes()).batch(2)

    def run(epochs, file):
        keras.utils.set_random_seed(0)
        model = small()
        fitted = stage(model, "joint", steps=4)
        path = str(tmp_path / file)
        return model, train(fitted, lambda epoch: dataset, epochs, path)

    whole, expected = run(2, "whole.npz")
    run(1, "parts.npz")
    resumed, history = run(2, "parts.npz")
    assert history == expected
    for one, other in zip(whole.weights, resumed.weights, strict=True):
        np.testing.assert_array_equal(numpy(one), numpy(other))


def test_missing_inputs():
    x = cubes()
    del x["motion"]
    for found in small().training_stages():
        with pytest.raises(ValueError, match="needs batches.*'motion'"):
            found(x)


# === Files and arguments ===


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_shape": (1, 16, 16, 1)}, "two frames or more"),
        ({"input_shape": (3, 24, 16, 1)}, "multiple of 16"),
        ({"input_shape": (3, None, 16, 1)}, "must be known"),
        ({"input_shape": (16, 16, 1)}, "frames, height, width, channels"),
        ({"sspcab": "late"}, "must be one or several.*'late'"),
        ({"num_slots": 1}, "num_slots"),
        ({"entropy_weight": -1}, "entropy_weight=-1"),
        ({"prediction_score_weight": -1}, "must be at least 0"),
        ({"learning_rates": (1e-3,)}, "three numbers"),
        ({"learning_rates": (1e-3, 0.0, 1e-3)}, "positive"),
        ({"epochs": (1, 2)}, "3 integers"),
        ({"batch_sizes": (1, 2, 0)}, "batch_sizes"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        small(**arguments)
