import keras
import numpy as np
import pytest
from keras import ops

from keras_sspcab.applications import HF2VAD
from keras_sspcab.layers import SSPCABLayer
from tests.applications.helpers import compiled_stage, moved, values_of

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


def losses_of(model, name, x):
    return compiled_stage(model, name).evaluate(x, verbose=0, return_dict=True)


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


@pytest.mark.parametrize("places", [("memory",), ("memory", "decoder")])
def test_places_of_the_block(places):
    blocks = {
        layer.name: layer.loss_weight
        for layer in small(sspcab=places)._flatten_layers()
        if isinstance(layer, SSPCABLayer)
    }
    assert blocks == {f"sspcab_{place}": 0.01 for place in places}


def test_weight_of_the_other_block():
    memory = small(sspcab_options={"type": "ssmctb"}).get_layer(
        "memory_autoencoder"
    )
    assert memory.get_layer("sspcab_memory").loss_weight == 0.001


# === Scores ===


def test_scores_follow_from_the_networks():
    model, x = small(prediction_score_weight=0.5), cubes(5)
    model.fit_scoring(cubes(20, seed=1))
    outputs = {k: numpy(v) for k, v in model.predict_on_batch(x).items()}
    memory, vunet = model.networks.values()
    rebuilt = np.stack(
        [memory(x["motion"][:, i])["reconstruction"] for i in (1, 2)], axis=1
    )
    inputs = {
        "frames": np.concatenate([x["appearance"][:, i] for i in (0, 1)], -1),
        "flows": np.concatenate([rebuilt[:, i] for i in (0, 1)], -1),
    }
    predicted = numpy(vunet(inputs)["prediction"])
    for name, value in (
        ("flow_reconstruction", rebuilt),
        ("prediction", predicted),
    ):
        np.testing.assert_allclose(outputs[name], value, atol=1e-5)
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
    expected = {
        "flow_loss": np.mean((numpy(outputs["reconstruction"]) - flow) ** 2),
        "entropy_loss": numpy(outputs["entropy"]).mean(),
    }
    block = results["sspcab_loss"]
    assert block > 0
    expected["loss"] = (
        expected["flow_loss"] + 2e-4 * expected["entropy_loss"] + block
    )
    assert results == pytest.approx({**results, **expected}, rel=1e-3)


def test_losses_of_the_prediction():
    model, x = small(gradient_weight=0.5), cubes()
    results = losses_of(model, "prediction", x)
    difference = numpy(model(x)["prediction"]) - x["appearance"][:, -1]
    error = np.mean(difference**2)
    total = error + 0.5 * results["gradient_loss"] + results["divergence_loss"]
    expected = {"prediction_loss": error, "loss": total}
    assert results == pytest.approx({**results, **expected}, rel=1e-3)
    # The memories are fixed, and so is their block.
    assert "sspcab_loss" not in results


def test_losses_of_both():
    model, x = small(entropy_weight=0.25), cubes()
    results = losses_of(model, "joint", x)
    flows = x["motion"][:, 1:]
    memory = model.networks["memory_autoencoder"]
    entropies, terms = [], []
    for i in range(2):
        entropies.append(numpy(memory(flows[:, i])["entropy"]))
        terms.append(float(sum(memory.losses)))
    rebuilt = numpy(model(x)["flow_reconstruction"])
    expected = {
        "flow_loss": np.mean((rebuilt - flows) ** 2),
        "entropy_loss": np.mean(entropies),
        # The mean over the flows, not their sum.
        "sspcab_loss": np.mean(terms),
    }
    if keras.config.backend() == "jax":
        # Keras drops the first term of a layer that is used twice.
        del expected["sspcab_loss"]
    names = ("flow", "prediction", "gradient", "divergence", "sspcab")
    expected["loss"] = 0.25 * results["entropy_loss"] + sum(
        results[f"{name}_loss"] for name in names
    )
    assert results == pytest.approx({**results, **expected}, rel=1e-3)


@pytest.mark.parametrize("name", ["prediction", "joint"])
def test_latents_are_drawn_in_training_alone(name):
    """Also where the memories before run as in inference."""
    found, x = compiled_stage(small(), name), cubes()

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
    compiled_stage(model, name, learning_rate=0.01).fit(x, verbose=0)
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
        ({"input_shape": (3, 24, 16, 1)}, "multiple of 16"),
        ({"input_shape": (3, None, 16, 1)}, "must be known"),
        ({"num_slots": 1}, "num_slots"),
        ({"prediction_score_weight": -1}, "at least 0.*-1"),
        ({"learning_rates": (1e-3,)}, "three numbers"),
        ({"learning_rates": (1e-3, 0.0, 1e-3)}, "above 0"),
        ({"epochs": (1, 2)}, "three numbers"),
        ({"batch_sizes": (1, 2, 0)}, "batch_sizes"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        small(**arguments)
