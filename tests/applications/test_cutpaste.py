import warnings

import keras
import numpy as np
import pytest

from keras_sspcab.applications import CutPaste
from keras_sspcab.scoring import GaussianDensity, KernelDensity
from tests.applications.helpers import (
    TENSORFLOW,
    assert_equal_weights,
    noise_images,
    numpy,
)

SMALL = {"input_shape": (32, 32, 3), "base_width": 4}

# Without tracing, each operation is compiled on its own there.
eager_steps = pytest.mark.skipif(
    keras.config.backend() == "jax", reason="steps in tests are slow on JAX"
)


def images(n=8, size=32, channels=3, seed=0):
    return noise_images(n, size, size, channels, seed)


def model(**arguments):
    result = CutPaste(**{**SMALL, **arguments})
    result.compile(run_eagerly=True)
    return result


def count(weights):
    return sum(int(np.prod(weight.shape)) for weight in weights)


@pytest.mark.parametrize(
    ("head_layers", "variant", "head"),
    [
        (1, "3way", 329_987),
        (8, "3way", 2_175_747),
        (1, "cutpaste", 329_987 - 129),
    ],
)
def test_parameter_counts(head_layers, variant, head):
    detector = CutPaste(sspcab=None, head_layers=head_layers, variant=variant)
    trunk = count(detector.get_layer("trunk").trainable_weights)
    assert trunk == 11_176_512
    assert count(detector.trainable_weights) == trunk + head


@pytest.mark.parametrize(
    ("density", "normalize"), [("gaussian", True), ("kde", False)]
)
def test_score_is_that_of_the_density(density, normalize):
    detector = model(density=density, normalize_embeddings=normalize)
    x, other = images(20), images(5, seed=1)
    detector.fit_scoring(x)
    detector.calibrate(x)

    def embed(values):
        outputs = detector.predict(values, verbose=0)["embedding"]
        if normalize:
            outputs /= np.linalg.norm(outputs, axis=-1, keepdims=True)
        return outputs

    fresh = {"gaussian": GaussianDensity, "kde": KernelDensity}[density]()
    fresh.build((None, 32))
    fresh.fit(embed(x))
    np.testing.assert_allclose(
        detector.predict(other, verbose=0)["raw_score"],
        numpy(fresh(embed(other))),
        rtol=1e-2,
    )


def test_map_is_grad_cam_of_the_whole_network():
    if not TENSORFLOW:
        pytest.skip("takes gradients with TensorFlow")
    import tensorflow as tf

    detector = model(input_shape=(96, 64, 3), sspcab=None)
    x = np.random.default_rng(0).random((6, 96, 64, 3)).astype("float32")
    detector.fit_scoring(x)
    features = detector.get_layer("trunk")(x)
    with tf.GradientTape() as tape:
        tape.watch(features)
        score, _ = detector.get_layer("embedding_score")(
            detector.get_layer("embedding")(features)
        )
        total = tf.reduce_sum(score)
    weights = tf.reduce_mean(tape.gradient(total, features), (1, 2))
    cam = tf.nn.relu(tf.einsum("bhwc,bc->bhw", features, weights))
    expected = tf.image.resize(cam[..., None], (96, 64))[..., 0]
    with pytest.warns(UserWarning, match="not been calibrated"):
        result = detector.predict(x, verbose=0)["anomaly_map"]
    assert result.max() > 0
    np.testing.assert_allclose(
        result, numpy(expected), rtol=1e-3, atol=1e-4 * result.max()
    )


@pytest.fixture(scope="module")
def pasted():
    """Images with parts pasted elsewhere, and their classes."""
    tf = pytest.importorskip("tensorflow")
    from keras_sspcab.data import cutpaste_views

    rng = np.random.default_rng(0)
    normal = rng.random((8, 4, 4, 3)).repeat(8, 1).repeat(8, 2)
    dataset = tf.data.Dataset.from_tensors(normal.astype("float32"))
    x, y = next(iter(cutpaste_views(dataset)))
    return x.numpy(), y["logits"].numpy()


def test_training_learns_the_classes(pasted):
    x, classes = pasted
    detector = CutPaste((32, 32, 3), base_width=8)
    detector.compile(learning_rate=0.03, jit_compile=False)
    losses = detector.fit(
        x, {"logits": classes}, batch_size=24, epochs=20, verbose=0
    ).history["loss"]
    assert losses[0] > 0.9
    assert min(losses) < 0.5 * losses[0]


def test_density_is_fitted_to_normal_images_only(pasted):
    tf = pytest.importorskip("tensorflow")
    x, classes = pasted
    detector = model()
    density = detector.get_layer("embedding_score").density
    pairs = tf.data.Dataset.from_tensors((x, {"logits": classes}))
    detector.fit(pairs, verbose=0)
    np.testing.assert_array_equal(numpy(density.mean), 0)
    detector.fit(images(), verbose=0)
    unit = numpy(detector(images())["embedding"])
    unit /= np.linalg.norm(unit, axis=-1, keepdims=True)
    np.testing.assert_allclose(numpy(density.mean), unit.mean(0), atol=1e-3)


def test_decay_is_a_part_of_the_loss():
    decayed, free = model(sspcab=None), model(sspcab=None, weight_decay=0.0)
    free.set_weights(decayed.get_weights())
    kernels = [
        layer.kernel
        for layer in decayed._flatten_layers()
        if hasattr(layer, "kernel")
    ]
    decay = 3e-5 / 2 * sum((numpy(kernel) ** 2).sum() for kernel in kernels)
    losses = [float(sum(m.losses)) for m in (decayed, free)]
    assert losses[0] - losses[1] == pytest.approx(decay, rel=1e-3)
    assert len(kernels) == 20 + 3


@eager_steps
def test_patches():
    size = 45  # The last pixels lie in no patch.
    detector = model(
        input_shape=(None, None, 3),
        localization="patch",
        patch_size=16,
        patch_stride=8,
    )
    detector.fit(images(12), batch_size=4, verbose=0)
    x = images(3, size, seed=1)
    detector.calibrate(images(6, size, seed=2))
    outputs = detector.predict(x, verbose=0)
    assert outputs["anomaly_map"].shape == (3, size, size)
    calibration = detector.calibration
    raw_map = (
        outputs["anomaly_map"] * calibration.map_std + calibration.map_mean
    )
    np.testing.assert_allclose(
        outputs["raw_score"], raw_map.max((1, 2)), rtol=1e-3
    )
    # A change far away changes the image's pooled features, but no patch here.
    changed = x.copy()
    changed[:, -8:, -8:] = 0
    after = detector.predict(changed, verbose=0)["anomaly_map"]
    np.testing.assert_allclose(
        after[:, :16, :16], outputs["anomaly_map"][:, :16, :16], atol=1e-3
    )
    assert np.abs(after - outputs["anomaly_map"]).max() > 1e-2


@eager_steps
def test_gray_images():
    detector = model(input_shape=(32, 32, 1), variant="union")
    detector.fit(images(4, channels=1), verbose=0)
    assert detector(images(2, channels=1))["logits"].shape == (2, 2)


def test_the_data_format_of_keras_means_nothing():
    model, x = CutPaste((32, 32, 3), base_width=2), noise_images(2)
    expected = numpy(model(x)["embedding"])
    keras.config.set_image_data_format("channels_first")
    try:
        copy = CutPaste.from_config(model.get_config())
        copy.set_weights(model.get_weights())
        np.testing.assert_array_equal(numpy(copy(x)["embedding"]), expected)
    finally:
        keras.config.set_image_data_format("channels_last")


def test_weights_of_a_file_are_not_needed_again(tmp_path):
    path = tmp_path / "trunk.weights.h5"
    first = model()
    first.get_layer("trunk").save_weights(path)
    second = model(weights=str(path))
    assert_equal_weights(
        second.get_layer("trunk").weights, first.get_layer("trunk").weights
    )
    second.save(tmp_path / "model.keras")
    path.unlink()
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert "weights" not in loaded.get_config()
    x = images()
    np.testing.assert_allclose(
        numpy(loaded(x)["logits"]), numpy(second(x)["logits"]), atol=1e-5
    )


# === Pretrained networks ===

BACKBONE = "efficientnet_lite0"


def pretrained(**arguments):
    # Random weights: those of ImageNet are in a package.
    return model(**{"backbone": BACKBONE, "weights": None, **arguments})


def test_frozen_network_keeps_its_weights(pasted):
    x, classes = pasted
    detector = pretrained()
    backbone = detector.get_layer("trunk").get_layer("backbone")
    before = backbone.get_weights()
    block = detector.get_layer("trunk").get_layer("sspcab_penultimate")
    kernel = numpy(block.masked_conv.trainable_weights[0]).copy()
    history = detector.fit(x, {"logits": classes}, verbose=0).history
    assert history["sspcab_loss"][0] > 0
    assert_equal_weights(before, backbone.weights)
    assert np.any(kernel != numpy(block.masked_conv.trainable_weights[0]))


def test_map_of_a_pretrained_network_adds_up_to_its_share_of_the_score():
    detector = pretrained(input_shape=(64, 64, 3), sspcab=None)
    x = images(12, 64)
    detector.fit_scoring(x)
    maps = [numpy(m) for m in detector.get_layer("trunk")(x[:4])]
    embedding = np.concatenate([m.mean((1, 2)) for m in maps], axis=-1)
    _, slope = detector.get_layer("embedding_score")(embedding)
    expected, start = 0, 0
    for features in maps:
        part = numpy(slope)[:, start : start + features.shape[-1]]
        cam = np.einsum("bhwc,bc->bhw", features, part).clip(0)
        # Places of the map, of which each is as large as its pixels.
        expected = expected + cam.mean((1, 2))
        start += features.shape[-1]
    raw_map = numpy(detector(x[:4])["anomaly_map"])
    assert raw_map.shape == (4, 64, 64)
    np.testing.assert_allclose(raw_map.sum((1, 2)), expected, rtol=0.1)


def test_whole_network_learns_but_for_its_normalization(pasted):
    x, classes = pasted
    detector = pretrained(freeze_backbone=False)
    backbone = detector.get_layer("trunk").get_layer("backbone")
    kernels, fixed = backbone.trainable_weights, backbone.non_trainable_weights
    assert all("kernel" in weight.name for weight in kernels)
    assert all(
        "preprocessing" in weight.path or "kernel" not in weight.name
        for weight in fixed
    )
    before, rest = ([numpy(w).copy() for w in ws] for ws in (kernels, fixed))
    detector.fit(x, {"logits": classes}, batch_size=24, verbose=0)
    # With random weights, some gradients are lost in rounding.
    assert any(
        np.any(numpy(new) != old)
        for new, old in zip(kernels, before, strict=True)
    )
    assert_equal_weights(fixed, rest)


def test_optimizers_that_take_no_notice_of_the_rate_warn():
    detector = pretrained(freeze_backbone=False)
    with pytest.warns(UserWarning, match="Adam takes no notice"):
        detector.compile("adam")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        detector.compile(keras.optimizers.SGD(0.1))
        pretrained(freeze_backbone=True).compile("adam")


def test_rate_of_a_pretrained_network_is_that_of_the_paper():
    if not TENSORFLOW:
        pytest.skip("takes gradients with TensorFlow")
    import tensorflow as tf

    trunk = pretrained(freeze_backbone=False).get_layer("trunk")
    backbone = trunk.get_layer("backbone")
    x = images()
    gradients = []
    for network in (trunk, backbone):
        with tf.GradientTape() as tape:
            # A map that the block does not see.
            total = tf.reduce_sum(network(x)[1])
        kernel = backbone.trainable_weights[0]
        gradients.append(numpy(tape.gradient(total, kernel)))
    np.testing.assert_array_equal(numpy(trunk(x)[1]), numpy(backbone(x)[1]))
    np.testing.assert_allclose(
        300 * gradients[0],
        gradients[1],
        rtol=1e-2,
        atol=1e-4 * np.abs(gradients[1]).max(),
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_shape": (32, 32, 2)}, "1 .gray. or 3 .color.*32, 32, 2"),
        ({"variant": "4way"}, "variant='4way'"),
        ({"density": "flow"}, "density='flow'"),
        ({"localization": "lime"}, "localization='lime'"),
        ({"base_width": 0}, "base_width=0"),
        ({"jitter": 1.5}, "jitter=1.5"),
        ({"weight_decay": -1.0}, "weight_decay=-1.0"),
        (
            {"localization": "patch", "patch_size": 33},
            "smaller than their patches.*patch_size=33",
        ),
        ({"weights": "missing.npz"}, "no file with weights"),
        ({"backbone": BACKBONE, "sspcab": "layer3"}, "one or several of"),
        ({"backbone": BACKBONE, "localization": "patch"}, "needs backbone="),
        ({"backbone": BACKBONE, "weights": "no.npz"}, "the path of a file"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        model(**arguments)


def test_bad_training_data():
    detector = model()
    with pytest.raises(ValueError, match="3 channels.*images with 1"):
        detector.fit(images(channels=1))
    with pytest.raises(ValueError, match="pairs of an input and a dict"):
        detector.fit(images(), images(), verbose=0)
    with pytest.raises(ValueError, match="at least 3 normal"):
        detector.fit_scoring(images(1))
    with pytest.raises(ValueError, match="Received: none"):
        detector.fit_scoring([])
