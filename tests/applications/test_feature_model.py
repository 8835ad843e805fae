import keras
import numpy as np
import pytest
from scipy import ndimage

from keras_sspcab.applications import MultiScalePaDiM, PaDiM, PatchCore
from keras_sspcab.backbones import load_backbone
from keras_sspcab.hosts import feature_graph
from keras_sspcab.progress import Progress
from keras_sspcab.variants import ImageVariants
from tests.applications.helpers import assert_equal_weights, numpy

pytestmark = pytest.mark.usefixtures("eager_steps")

SMALL = {"input_shape": (64, 64, 3), "weights": None}
HOSTS = {
    "multiscale_padim": lambda **options: MultiScalePaDiM(
        **{**SMALL, "num_features": 8, **options}
    ),
    "padim": lambda **options: PaDiM(**{**SMALL, "num_features": 8, **options}),
    # All patches are kept, so that no choice depends on the others.
    "patchcore": lambda **options: PatchCore(
        **{**SMALL, "memory_size": 600, **options}
    ),
}


def images(n=6, size=64, seed=0):
    """Images that are alike, as those of one product are."""
    rng = np.random.default_rng(seed)
    coarse = np.random.default_rng(9).random((1, 8, 8, 3))
    coarse = coarse + 0.1 * rng.random((n, 8, 8, 3))
    x = coarse.repeat(size // 8, 1).repeat(size // 8, 2) / 1.2
    return x.astype("float32")


def build(name, **options):
    keras.utils.set_random_seed(0)
    return HOSTS[name](**options)


# === Features ===


def test_features_are_means_of_neighborhoods_on_the_finest_grid():
    keras.utils.set_random_seed(0)
    taps = (16, 8, 4)
    graph = feature_graph((72, 64, 3), taps=taps, weights=None)
    keras.utils.set_random_seed(0)
    backbone = load_backbone(taps=taps, weights=None)
    x = np.random.default_rng(0).random((2, 72, 64, 3)).astype("float32")
    parts = []
    for factor, values in zip((4, 2, 1), backbone(x), strict=True):
        window = np.ones((1, 3, 3, 1))
        values = numpy(values)
        count = ndimage.convolve(np.ones_like(values), window, mode="constant")
        mean = ndimage.convolve(values, window, mode="constant") / count
        mean = mean.repeat(factor, 1).repeat(factor, 2)
        parts.append(mean[:, :18, :16])
    result = keras.Model(graph.image, graph.features)(x)
    np.testing.assert_allclose(
        numpy(result), np.concatenate(parts, -1), rtol=1e-3, atol=1e-6
    )


@pytest.mark.parametrize("residual", ["append", "replace"])
def test_residual_is_what_the_block_could_not_predict(residual):
    graph = feature_graph(
        (64, 64, 3),
        "features",
        weights=None,
        residual=residual,
        sspcab_options={"kernel_size": 2},
    )
    model = keras.Model(graph.image, graph.features)
    block = model.get_layer("sspcab_features")
    assert block.kernel_size == 2
    assert block.activation is keras.activations.linear
    x = images()
    features = keras.Model(graph.image, block.input)(x)
    expected = numpy(features) - numpy(block(features))
    if residual == "append":
        expected = np.concatenate([features, expected], axis=-1)
    np.testing.assert_allclose(numpy(model(x)), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_shape": (64, 64, 2)}, "1 or 3"),
        ({"neighborhood": 2}, "must be odd.*neighborhood=2"),
        ({"residual": "drop"}, "residual='drop'"),
        ({"backbone": "resnet5"}, "Did you mean"),
        ({"taps": (8, 64)}, "Received: 64"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        feature_graph(**{**SMALL, **arguments})


# === Weights of the backbone ===


def test_file_brings_the_weights_of_the_backbone(tmp_path, monkeypatch):
    host = build("padim", weights="imagenet")
    assert host.backbone_weights["weights"] == "imagenet"
    assert host.backbone_weights["license"] == "Apache-2.0"
    host.fit(images())
    host.calibrate()
    host.save(tmp_path / "model.keras")
    # Nothing is looked for when it is loaded.
    monkeypatch.setattr(
        "keras_sspcab.backbones.efficientnet_lite.find_weights", None
    )
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_config() == host.get_config()
    assert loaded.backbone_weights == host.backbone_weights
    x = images(4, seed=1)
    np.testing.assert_allclose(
        loaded.predict(x, verbose=0)["anomaly_score"],
        host.predict(x, verbose=0)["anomaly_score"],
        rtol=1e-4,
        atol=1e-4,
    )
    with pytest.raises(ValueError, match="no scores of folds"):
        loaded.calibrate()


# === Training ===


def test_without_a_block_there_is_nothing_to_train():
    host = build("patchcore")
    assert not host.needs_training
    host.compile()
    x = images()
    before = host.get_layer("backbone").get_weights()
    history = host.fit(x, epochs=3, batch_size=2, verbose=0)
    assert history.history == {}
    assert host.fold_scores.scores.shape == (6,)
    assert_equal_weights(host.get_layer("backbone").weights, before)


def test_block_learns_and_nothing_else():
    # Features of random weights hardly differ.
    host = build("padim", sspcab="features", weights="imagenet")
    assert host.needs_training
    host.compile(learning_rate=0.01, run_eagerly=True)
    trained = {variable.path for variable in host.trainable_variables}
    assert trained
    assert all("sspcab_features" in path for path in trained)
    before = {v.path: numpy(v).copy() for v in host.variables}
    history = host.fit(images(), epochs=6, batch_size=3, verbose=0).history
    assert history["loss"][-1] < 0.8 * history["loss"][0]
    assert history["loss"] == pytest.approx(history["sspcab_loss"])
    changed = {
        v.path for v in host.variables if (numpy(v) != before[v.path]).any()
    }
    assert trained <= changed
    scoring = host.get_layer(host._fitted[0]).path
    assert all(
        path in trained or "standardization" in path or path.startswith(scoring)
        for path in changed
    )
    assert set(host(images(), training=True)) == {"residual"}
    # Standardized as the features of the training come.
    features = keras.Model(
        host.inputs[0], host.get_layer("sspcab_features").input
    )(images())
    assert 0.3 < numpy(features).std() < 3
    assert host.calibrate().num_images == 6


def test_labels_beside_the_images_change_nothing():
    import tensorflow as tf

    x, results = images(), []
    for parts in (x, (x, np.zeros(6))):
        host = build("padim", sspcab="features")
        host.compile(run_eagerly=True)
        host.fit(tf.data.Dataset.from_tensors(parts), verbose=0)
        results.append(host.calibrate())
    assert results[0].num_images == results[1].num_images == 6
    assert results[0].threshold == results[1].threshold


# === Folds ===


@pytest.mark.parametrize(("count", "name"), [(2, "padim"), (7, "patchcore")])
def test_folds_are_those_of_refits(count, name):
    x = images(count)
    host = build(name)
    host.fit_scoring(x)
    found = host.fold_scores
    assert not found.stand_ins
    final = host._raw.value.predict_on_batch(x)["raw_score"]
    assert found.scores.mean() > final.mean()
    (fitted,) = host._fitted
    features = host._statistics.value.predict_on_batch(x)[fitted]
    layer = host.get_layer(fitted)
    expected = []
    folds = np.arange(count) % 5
    for fold in range(min(count, 5)):
        layer.fit([features[folds != fold]])
        expected.extend(
            host._raw.value.predict_on_batch(x[folds == fold])["raw_score"]
        )
    np.testing.assert_allclose(found.scores, expected, rtol=1e-3)
    # What stays are the statistics of all.
    layer.fit([features])
    np.testing.assert_allclose(
        host._raw.value.predict_on_batch(x)["raw_score"],
        final,
        rtol=1e-3,
        atol=1e-6,
    )


def test_calibration_by_folds():
    x = images(8)
    host = build("patchcore")
    with pytest.raises(ValueError, match="Call `fit_scoring` first"):
        host.calibrate()
    host.fit(x)
    calibration = host.calibrate(quantile=1.0, pixel_quantile=1.0)
    found = host.fold_scores
    assert calibration.num_images == 8
    assert calibration.score_mean == pytest.approx(found.scores.mean(), 1e-5)
    assert calibration.map_std == pytest.approx(found.pixels.std(), 1e-3)
    assert found.pixels.shape == (8 * 64 * 64,)
    # No normal image scored higher: the threshold lies just above.
    limit = calibration.threshold * calibration.score_std
    limit += calibration.score_mean
    assert limit == pytest.approx(found.scores.max(), rel=1e-4)
    outputs = host.predict(np.concatenate([x, 1 - x]), verbose=0)
    assert outputs["is_anomalous"].tolist() == [False] * 8 + [True] * 8
    # As for any host, with images of their own.
    other = host.calibrate(images(6, seed=1))
    assert other.num_images == 6
    assert host.calibration == other


class Parts:
    """Batches of three images, which notes each image that is read."""

    def __init__(self, x, read=None):
        self.x, self.read = x, [] if read is None else read

    def __iter__(self):
        for start in range(0, len(self.x), 3):
            self.read += [*self.x[start : start + 3]]
            yield self.x[start : start + 3]

    def part(self, numbers):
        return Parts(self.x[numbers], self.read)


def test_images_that_can_be_read_in_parts_are_read_twice():
    x = images(12)
    x[7] = x[2]
    parts, found = Parts(x), []
    for data in (x, parts, Progress().track(Parts(x), "Fitting")):
        host = build("padim")
        host.fit_scoring(data)
        found.append(host.fold_scores)
    assert len(parts.read) == 24
    for other in found[1:]:
        assert (found[0].scores == other.scores).all()
        assert (found[0].pixels == other.pixels).all()


def test_pixels_are_thinned(monkeypatch):
    monkeypatch.setattr("keras_sspcab.hosts.feature_model.MAX_PIXELS", 1000)
    host = build("patchcore")
    host.fit_scoring(images(20))
    assert 800 < len(host.fold_scores.pixels) <= 1000
    assert host.calibrate().is_calibrated


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("name", sorted(HOSTS))
def test_few_images(name, count):
    x = images(count)
    host = build(name)
    host.fit(x)
    assert (host.fold_scores.stand_ins == 0) == (count > 1)
    calibration = host.calibrate()
    assert calibration.num_images == count
    # Of a single image, those that are shifted to eight sides.
    assert calibration.stand_ins == (8 if count == 1 else 0)
    assert calibration.certainty == "a guess"
    outputs = host.predict(np.concatenate([x, 1 - x]), verbose=0)
    assert all(np.isfinite(value).all() for value in outputs.values())
    flags = outputs["is_anomalous"].tolist()
    assert flags[:count] == [False] * count
    # Copies of a single image can be stranger than anything.
    assert count == 1 or all(flags[count:])


def test_equal_images_are_in_one_fold():
    host = build("padim")
    host.fit_scoring(np.repeat(images(1), 7, axis=0))
    assert host.fold_scores.stand_ins
    assert host.calibrate().num_images == 1


# === Variants ===


@pytest.mark.parametrize("name", ["padim", "patchcore"])
def test_statistics_are_of_all_variants_and_thresholds_of_images(name):
    def raw_scores(images):
        return host._raw.value.predict_on_batch(images)["raw_score"]

    x = images(5)
    host = build(name, **({"memory_size": 2000} if name == "patchcore" else {}))
    host.variants = ImageVariants(("flip",), brightness=0.1)
    host.fit_scoring(x)
    found, final = host.fold_scores, raw_scores(x)
    assert not found.stand_ins
    assert found.scores.shape == (5,)
    variants = np.concatenate(list(host.variants.of(x)))
    assert len(variants) == 5 * 6
    (fitted,) = host._fitted
    features = host._statistics.value.predict_on_batch(variants)[fitted]
    # A fold is held out with all of its variants.
    host.get_layer(fitted).fit([features[np.arange(30) % 5 != 4]])
    np.testing.assert_allclose(raw_scores(x)[4], found.scores[4], rtol=1e-3)
    # The statistics that stay are those of all.
    host.get_layer(fitted).fit([features])
    np.testing.assert_allclose(raw_scores(x), final, rtol=1e-3, atol=1e-4)


def test_a_single_image_is_compared_with_its_allowed_variants():
    x = images(1)
    host = build("patchcore")
    host.variants = ImageVariants(("rotate", "flip"), brightness=0.1)
    host.fit(x)
    calibration = host.calibrate()
    assert (calibration.num_images, calibration.stand_ins) == (1, 8)
    # Each is known by then.
    views = np.concatenate(host.variants.symmetric_of(x))
    known = host.predict(views, verbose=0)
    assert not known["is_anomalous"].any()
    other = build("patchcore")
    other.fit(x)
    other.calibrate()
    unknown = other.predict(views, verbose=0)
    assert (unknown["raw_score"] > known["raw_score"])[1:].all()
    # Two variants have no spread: shifted copies do.
    other.variants = ImageVariants(("flip",))
    other.fit(x)
    assert other.calibrate().stand_ins == 8


def test_turned_and_mirrored_images_are_compared_if_asked_for():
    x = images(6)
    host = build("padim")
    host.fit_scoring(x)
    assert host.fold_scores.changed == {}
    host.compares_variants = True
    host.fit_scoring(x)
    found = host.fold_scores
    assert set(found.changed) == {"rotate", "flip"}
    # These images are not symmetric.
    for scores in found.changed.values():
        assert scores.min() > found.scores.max()
    # These are.
    x = np.concatenate(ImageVariants(("flip",)).symmetric_of(x[:3]))
    host.fit_scoring(x[[0, 4, 2, 3, 1, 5]])
    scores, mirrored = host.fold_scores.scores, host.fold_scores.changed
    assert mirrored["flip"].mean() < scores.mean() + scores.std()


def test_order_and_batches_do_not_matter():
    x = images(12)
    expected = build("padim")
    expected.fit_scoring(x)

    class Shuffled:
        """Batches of another order each time, as datasets have them."""

        # Which fold an image is in follows from the first pass.
        order = np.arange(12)

        def __iter__(self):
            for start in range(0, 12, 5):
                yield x[self.order[start : start + 5]], None
            self.order = np.random.default_rng(0).permutation(self.order)

    for data in (Shuffled(), (x[i : i + 7] for i in (0, 7))):
        host = build("padim")
        host.fit_scoring(data)
        np.testing.assert_allclose(
            np.sort(host.fold_scores.scores),
            np.sort(expected.fold_scores.scores),
            rtol=1e-3,
        )


def test_images_that_change_are_reported():
    rng = np.random.default_rng(0)

    class Augmented:
        def __iter__(self):
            yield images() + rng.random((6, 1, 1, 1), "float32") / 10

    host = build("padim")
    with pytest.warns(UserWarning, match="differ each time they are read"):
        host.fit_scoring(Augmented())
    assert host.fold_scores.scores.shape == (6,)


@pytest.mark.parametrize("data", [[], images(0)])
def test_no_images(data):
    with pytest.raises(ValueError, match="needs normal images"):
        build("padim").fit_scoring(data)


def test_images_that_are_not_finite():
    x = images()
    x[3] = np.nan
    with pytest.raises(ValueError, match="must be finite"):
        build("patchcore").fit_scoring(x)
