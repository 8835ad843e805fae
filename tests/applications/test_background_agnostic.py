import keras
import numpy as np
import pytest
from keras import ops

from keras_sspcab.applications.background_agnostic import (
    INPUTS,
    BackgroundAgnostic,
)
from tests.applications.helpers import (
    TENSORFLOW,
    compiled_stage,
    moved,
    numpy,
    values_of,
)

SMALL = {"input_shape": (32, 32, 1), "base_width": 4, "classifier_units": 8}


def small(**arguments):
    return BackgroundAgnostic(**{**SMALL, **arguments})


def crops(count=4, seed=0, size=32):
    """Smooth squares that move slowly, on gray."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((count, size, size, 1), "float32")
    for row in mask:
        top, left = rng.integers(4, size // 2 - 2, 2)
        row[top : top + size // 2, left : left + size // 2] = 1
    noise = rng.normal(0, 0.02, (count, size, size, 1))
    flow = mask * rng.uniform(0.5, 1.0, (count, 1, 1, 2))
    batch = {
        "appearance": 0.3 + 0.4 * mask + noise,
        "previous_motion": flow,
        "next_motion": -flow,
    }
    return {name: value.astype("float32") for name, value in batch.items()}


def training_crops(count=4, seed=0, mask=True):
    """What `add_pseudo_abnormal` makes of them."""
    batch = crops(count, seed)
    rng = np.random.default_rng(seed + 100)
    batch["abnormal_appearance"] = rng.random(
        batch["appearance"].shape, "float32"
    )
    for name in INPUTS[1:]:
        batch[f"abnormal_{name}"] = 3 * batch[name]
    if mask:
        batch["mask"] = (batch["appearance"] > 0.5).astype("float32")
    return batch


@pytest.fixture(scope="module")
def paper():
    """The networks of the framework, with the block."""
    return BackgroundAgnostic()


# === Networks ===


@pytest.mark.parametrize(
    ("name", "total"), [("appearance", 30_689), ("next_motion", 31_266)]
)
def test_parameter_counts(name, total, paper):
    encoder = paper.get_layer(f"{name}_encoder").count_params()
    decoder = paper.get_layer(f"{name}_reconstruction_decoder")
    block = decoder.get_layer(f"{decoder.name}_sspcab")
    assert (block.count_params(), block.loss_weight) == (4_516, 0.1)
    # None in the other decoders.
    other = {part.name: part for part in paper.training_parts}[
        f"{name}_adversarial_decoder"
    ]
    replaced = other.get_layer(f"{other.name}_conv3")
    assert replaced.count_params() == 9_248
    assert encoder + other.count_params() == total
    assert encoder + decoder.count_params() == total - 9_248 + 4_516


def test_classifiers(paper):
    name = "appearance_classifier"
    classifier = paper.get_layer(name)
    convs = [classifier.get_layer(f"{name}_conv{i}") for i in range(1, 6)]
    assert [conv.filters for conv in convs] == [32, 32, 16, 16, 16]
    # The latent features are added behind the third pooling.
    latent = classifier.inputs[1]
    pooled = classifier.get_layer(f"{name}_pool3").output
    assert classifier.get_layer(f"{name}_add").input == [pooled, latent]
    assert classifier.get_layer(f"{name}_dense").input.shape == (None, 64)
    assert classifier.output.shape == (None, 2)


def test_places_of_the_block():
    model = small(sspcab=("adversarial", "segmentation"))
    parts = [model.get_layer(f"{n}_reconstruction_decoder") for n in INPUTS]
    parts += model.training_parts
    with_block = {
        part.name
        for part in parts
        if any(layer.name.endswith("_sspcab") for layer in part.layers)
    }
    assert with_block == {part.name for part in model.training_parts}


# === Scores ===


@pytest.mark.filterwarnings("ignore:.*not been calibrated")
def test_scores_follow_from_the_networks():
    model, x = small(motion_scale=0.5), crops(5)
    outputs = model.predict(x, verbose=0)
    expected = []
    for name in INPUTS:
        crop = x[name] * (1.0 if name == "appearance" else 0.5)
        features = model.get_layer(f"{name}_encoder")(crop)
        decoder = model.get_layer(f"{name}_reconstruction_decoder")
        reconstruction = numpy(decoder(features))
        error = np.abs(crop - reconstruction)
        if name == "appearance":
            np.testing.assert_allclose(
                outputs["appearance_reconstruction"], reconstruction, atol=1e-5
            )
            np.testing.assert_allclose(
                outputs["anomaly_map"], error[..., 0], atol=1e-5
            )
        logits = model.get_layer(f"{name}_classifier")(
            [ops.convert_to_tensor(error, "float32"), features[0]]
        )
        expected.append(numpy(ops.softmax(logits))[:, 1])
    expected = np.stack(expected, -1)
    np.testing.assert_allclose(
        outputs["normal_probability"], expected, atol=1e-5
    )
    # Untrained, but not all alike.
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(
        outputs["raw_score"], 1 - expected.mean(1), atol=1e-5
    )


def test_inputs_are_taken_by_name():
    model, x = small(), training_crops()
    expected = numpy(model({name: x[name] for name in INPUTS})["raw_score"])
    # What else is in a batch changes nothing, nor does the order.
    for batch in (x, dict(reversed(x.items()))):
        found = model.predict_on_batch(batch)
        np.testing.assert_allclose(found["raw_score"], expected, atol=1e-5)
    del x["previous_motion"]
    with pytest.raises(ValueError, match="previous_motion"):
        model(x)


# === Losses ===


def reconstruct(model, x, name, decoder=None):
    features = model.get_layer(f"{name}_encoder")(x)
    decoder = decoder or model.get_layer(f"{name}_reconstruction_decoder")
    return numpy(decoder(features)).astype("float64")


def test_losses_of_the_first_stage():
    model, x = small(segmentation_weight=0.5), training_crops()
    results = compiled_stage(model, "autoencoders").evaluate(
        x, verbose=0, return_dict=True
    )
    expected = {
        f"{name}_reconstruction_loss": np.mean(
            (reconstruct(model, x[name], name) - x[name]) ** 2
        )
        for name in INPUTS
    }
    total = sum(expected.values())
    decoder = model.training_parts[1]
    logits = reconstruct(model, x["appearance"], "appearance", decoder)
    probability = 1 / (1 + np.exp(-logits))
    chance = np.where(x["mask"] == 1, probability, 1 - probability)
    expected["appearance_segmentation_loss"] = -np.log(chance).mean()
    total += 0.5 * expected["appearance_segmentation_loss"]
    for name, value in expected.items():
        assert results[name] == pytest.approx(value, rel=1e-3), name
    assert results["sspcab_loss"] > 0
    assert results["loss"] == pytest.approx(
        total + results["sspcab_loss"], rel=1e-3
    )
    absolute = small(reconstruction_loss="mae", segmentation_weight=0)
    results = compiled_stage(absolute, "autoencoders").evaluate(
        x, verbose=0, return_dict=True
    )
    error = reconstruct(absolute, x["next_motion"], "next_motion")
    assert results["next_motion_reconstruction_loss"] == pytest.approx(
        np.abs(error - x["next_motion"]).mean(), rel=1e-3
    )
    assert "appearance_segmentation_loss" not in results
    assert len(absolute.training_parts) == 3


def test_without_masks_nothing_is_segmented():
    model = small()
    decoder = model.training_parts[1]
    assert decoder.name == "appearance_segmentation_decoder"
    before = values_of(decoder)
    fitted = compiled_stage(model, "autoencoders")
    # An optimizer that met no gradient would warn, which is an error here.
    history = fitted.fit(training_crops(mask=False), verbose=0).history
    assert float(history["appearance_segmentation_loss"][0]) == 0
    assert moved(decoder, before) == 0
    fitted.fit(training_crops(), verbose=0)
    assert moved(decoder, before) > 0


def test_losses_of_the_third_stage():
    model, x = small(), training_crops()
    results = compiled_stage(model, "classifiers").evaluate(
        x, verbose=0, return_dict=True
    )
    abnormal = {name: x[f"abnormal_{name}"] for name in INPUTS}
    normal, false = (
        numpy(model(batch)["normal_probability"])
        for batch in ({n: x[n] for n in INPUTS}, abnormal)
    )
    losses = -0.5 * (np.log(normal).mean(0) + np.log(1 - false).mean(0))
    for name, loss in zip(INPUTS, losses, strict=True):
        value = results[f"{name}_classification_loss"]
        assert value == pytest.approx(loss, rel=1e-3), name
    assert results["loss"] == pytest.approx(losses.sum(), rel=1e-3)
    # The blocks are not trained: their term is left out, and not reported.
    assert "sspcab_loss" not in results


@pytest.mark.skipif(not TENSORFLOW, reason="takes gradients with TensorFlow")
def test_gradient_of_the_adversarial_decoder_is_reversed():
    import tensorflow as tf

    x = training_crops()

    def gradients(strength):
        keras.utils.set_random_seed(1)
        model = small(adversarial_weight=strength)
        fitted = compiled_stage(model, "adversarial")
        with tf.GradientTape() as tape:
            loss = fitted.compute_loss(x, None, fitted(x, training=True))
        parts = model.get_layer("appearance_encoder"), model.training_parts[0]
        return parts, tape.gradient(loss, [part.weights for part in parts])

    (encoder, decoder), (base, _) = gradients(0.0)
    _, (reversed_, same) = gradients(2.0)
    abnormal = x["abnormal_appearance"]
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((decoder(encoder(abnormal)) - abnormal) ** 2)
    to_encoder, to_decoder = tape.gradient(
        loss, [encoder.weights, decoder.weights]
    )
    for plain, whole, without in zip(to_encoder, reversed_, base, strict=True):
        expected = -2.0 * plain.numpy()
        atol = 1e-3 * np.abs(expected).max() + 1e-7
        np.testing.assert_allclose(whole - without, expected, atol=atol)
        assert np.abs(expected).max() > 1e-6
    # The decoder itself descends.
    for plain, whole in zip(to_decoder, same, strict=True):
        np.testing.assert_allclose(whole, plain, rtol=1e-3, atol=1e-6)


# === Training ===


def test_stages():
    model = small(epochs=(5, 3, 2), batch_size=7)
    stages = model.training_stages()
    assert [s.name for s in stages] == [
        "autoencoders",
        "adversarial",
        "classifiers",
    ]
    assert [s.epochs for s in stages] == [5, 3, 2]
    assert [s.batch_size for s in stages] == [7] * 3
    assert [s.needs_pseudo_abnormal for s in stages] == [False, True, True]
    default = BackgroundAgnostic(base_width=2).training_stages()
    assert {(s.epochs, s.batch_size) for s in default} == {(200, 64)}


def test_each_stage_trains_its_parts():
    model, x = small(), training_crops()
    parts = {
        layer.name: layer
        for layer in (*model.layers, *model.training_parts)
        if layer.weights
    }
    coders = "encoder", "reconstruction_decoder", "segmentation_decoder"
    for name, trained in (
        ("autoencoders", coders),
        ("adversarial", (*coders, "adversarial_decoder")),
        ("classifiers", ("classifier",)),
    ):
        before = {part: values_of(layer) for part, layer in parts.items()}
        compiled_stage(model, name).fit(x, batch_size=2, verbose=0)
        changed = {p for p in parts if moved(parts[p], before[p]) > 0}
        assert changed == {part for part in parts if part.endswith(trained)}


@pytest.mark.slow
def test_training_learns():
    model = small(learning_rate=1e-2, base_width=8)
    x = training_crops(8)
    for name, epochs in (("autoencoders", 6), ("classifiers", 15)):
        # Tracing the first takes longer than its few steps.
        fitted = compiled_stage(
            model, name, run_eagerly=TENSORFLOW and epochs < 10
        )
        history = fitted.fit(x, batch_size=8, epochs=epochs, verbose=0).history
        losses = [float(value) for value in history["loss"]]
        assert losses[-1] < 0.7 * losses[0], name
    abnormal = {name: x[f"abnormal_{name}"] for name in INPUTS}
    normal, false = (
        numpy(model(batch)["raw_score"])
        for batch in ({n: x[n] for n in INPUTS}, abnormal)
    )
    assert normal.max() < false.min()


def test_missing_inputs():
    model = small()
    for name, removed in (
        ("autoencoders", "next_motion"),
        ("classifiers", "abnormal_next_motion"),
    ):
        x = training_crops()
        del x[removed]
        with pytest.raises(ValueError, match=f"{name} needs.*'{removed}'"):
            compiled_stage(model, name)(x)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_shape": (48, 64, 1)}, "a multiple of 32.*48, 64, 1"),
        ({"base_width": 5}, "even.*base_width=5"),
        ({"base_width": 0}, "base_width=0"),
        ({"motion_scale": 0.0}, "motion_scale=0.0"),
        ({"skip_connections": ("d4",)}, "`skip_connections` must be.*d4"),
        ({"reconstruction_loss": "l2"}, "reconstruction_loss='l2'"),
        ({"adversarial_weight": -0.5}, "adversarial_weight=-0.5"),
        ({"classifier_units": 0}, "classifier_units=0"),
        ({"learning_rate": -1e-3}, "learning_rate=-0.001"),
        ({"epochs": (1, 2)}, r"three numbers.*epochs=\(1, 2\)"),
        ({"epochs": (1, 2, -3)}, "epochs=-3"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        small(**arguments)
