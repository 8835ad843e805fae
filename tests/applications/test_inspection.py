from unittest import mock

import keras
import numpy as np
import pytest

from keras_sspcab.applications import AutoEncoder, CutPaste, PatchCore
from keras_sspcab.hosts import InspectionModel
from keras_sspcab.regions import Region, Regions
from tests.applications.helpers import noise_images

SIZE = (48, 80)


def patchcore(size=32):
    return PatchCore((size, size, 3), weights=None, memory_size=32)


def images(count=8, seed=0):
    return np.random.default_rng(seed).random((count, *SIZE, 3), "float32")


def two_regions(**options):
    labels = np.zeros(SIZE, int)
    labels[4:44, 4:30] = 1
    labels[4:30, 40:70] = 2
    parts = (Region("thread"), Region("head", **options))
    return Regions(labels, parts)


@pytest.fixture(scope="module")
def normal():
    return images()


@pytest.fixture(scope="module")
def model(normal):
    keras.utils.set_random_seed(0)
    model = InspectionModel(patchcore(), SIZE, regions=two_regions())
    model.fit(normal)
    model.calibrate()
    return model


def test_a_defect_is_found_where_it_is(model):
    image = images(1, seed=1)
    image[:, 20:26, 50:56] = 1.0
    clean, outputs = model.predict(images(1, seed=1)), model.predict(image)
    change = outputs["anomaly_map"] - clean["anomaly_map"]
    row, column = np.unravel_index(change.argmax(), change.shape)[1:]
    assert 10 < row < 36
    assert 40 < column < 66
    grown = outputs["region_scores"] > clean["region_scores"] + 1
    assert grown.tolist() == [[False, True]]


def test_what_is_outside_counts_nowhere(normal):
    regions = two_regions()
    changed = normal.copy()
    changed[:, ~regions.inside] = images(8, seed=5)[:, ~regions.inside]
    results = []
    for data in (normal, changed):
        keras.utils.set_random_seed(0)
        model = InspectionModel(patchcore(), SIZE, regions=regions)
        model.fit(data)
        limits = model.calibrate().to_dict()
        # What images look like is compared as a whole.
        del limits["reference"]
        results.append((limits, model.predict(data, verbose=0)))
    (before, outputs), (after, others) = results
    assert before == after
    for name, value in outputs.items():
        np.testing.assert_array_equal(value, others[name], err_msg=name)
    # Nothing outside stands out in the map.
    maps = outputs["anomaly_map"]
    outside = maps[:, ~regions.inside].max(axis=1)
    assert (outside == maps[:, regions.inside].min(axis=1)).all()


def test_false_alarms_are_divided_among_the_regions(model, normal):
    calibration = model.calibration
    assert [part.name for part in calibration.regions] == ["thread", "head"]
    # Three criteria at 0.95 together.
    each = 1 - 0.05 / 3
    assert calibration.regions[0].quantile == pytest.approx(each)
    outputs = model.predict(normal, verbose=0)
    limits = [part.threshold for part in calibration.regions]
    by_region = outputs["region_scores"] >= limits
    assert (outputs["region_is_anomalous"] == by_region).all()
    by_score = outputs["anomaly_score"] >= calibration.threshold
    decided = outputs["is_anomalous"]
    assert (decided == (by_score | by_region.any(axis=1))).all()


def test_a_region_has_a_threshold_of_its_own(normal):
    for option, value in (("threshold", -9.0), ("quantile", 0.5)):
        regions = two_regions(**{option: value})
        model = InspectionModel(patchcore(), SIZE, regions=regions)
        model.fit(normal)
        thread, head = model.calibrate().regions
        assert getattr(head, option) == value
        assert head.threshold < thread.threshold
        raw = model.normal_scores(None).of_regions[:, 1]
        reached = (raw - head.score_mean) / head.score_std >= head.threshold
        assert reached.sum() == (8 if option == "threshold" else 3)
        flags = model.predict(normal, verbose=0)
        by_head = flags["region_is_anomalous"][:, 1]
        assert by_head.any()
        assert flags["is_anomalous"][by_head].all()


@pytest.mark.parametrize("regions", [None, two_regions(quantile=0.9)])
def test_files_keep_it(tmp_path, normal, regions):
    model = InspectionModel(patchcore(), SIZE, 0.1, regions)
    model.fit(normal)
    model.calibrate()
    model.save(tmp_path / "a.keras")
    loaded = keras.models.load_model(tmp_path / "a.keras", compile=False)
    assert loaded.name == model.name == "patchcore"
    assert loaded.calibration == model.calibration
    expected = model.predict(normal, verbose=0)
    for name, value in loaded.predict(normal, verbose=0).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


def test_without_tiles_it_is_the_host():
    x = noise_images(6)
    keras.utils.set_random_seed(0)
    host = patchcore()
    host.fit(x)
    expected = host.calibrate(), host.predict(x, verbose=0)
    keras.utils.set_random_seed(0)
    model = InspectionModel(patchcore())
    model.fit(x)
    calibration = model.calibrate()
    assert calibration.threshold == pytest.approx(expected[0].threshold)
    for name, value in model.predict(x, verbose=0).items():
        np.testing.assert_allclose(
            value, expected[1][name], rtol=1e-4, atol=1e-4, err_msg=name
        )


def test_each_image_is_held_out_as_a_whole():
    # Two images, each ten times: one is in a fold, and unlike the other.
    pair = images(2)
    pair[1] = 1 - 0.5 * pair[0]
    model = InspectionModel(patchcore(), SIZE)
    model.fit(pair)
    held_out = model.normal_scores(None).scores
    fitted = model.normal_scores(pair).scores
    assert (held_out > 2 * fitted.max()).all()


def test_a_single_image_stays_one():
    model = InspectionModel(patchcore(), SIZE)
    model.fit(images(1))
    calibration = model.calibrate()
    assert (calibration.num_images, calibration.stand_ins) == (1, 8)


class Pairs(keras.utils.PyDataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return images(2, seed=index), np.zeros(2)


def test_tiles_are_cut_from_all_that_can_be_read():
    import tensorflow as tf

    batches = [images(2, seed=0), images(2, seed=1)]
    x, results = np.concatenate(batches), []
    for data in (
        x,
        batches,
        tf.data.Dataset.from_tensor_slices((x, np.zeros(4))).batch(2),
        Pairs(),
    ):
        keras.utils.set_random_seed(0)
        host = AutoEncoder((32, 32, 3), filters=(4, 4, 4))
        model = InspectionModel(host, SIZE)
        model.compile(run_eagerly=True)
        history = model.fit(data, batch_size=12, verbose=0)
        results.append(history.history["loss"])
    assert results[1:] == 3 * results[:1]


def test_it_is_for_whom_its_host_is():
    host = CutPaste((32, 32, 3), base_width=2)
    assert InspectionModel(host, SIZE).guide is host.guide


@pytest.mark.slow
@pytest.mark.parametrize(
    "host",
    [
        AutoEncoder((32, 32, 3), filters=(4, 4, 4)),
        CutPaste((32, 32, 3), base_width=2),
    ],
    ids=lambda host: host.name,
)
def test_hosts_are_trained_on_tiles(host, normal):
    model = InspectionModel(host, SIZE, regions=two_regions())
    # Of 2 x 3 tiles all have a part in a region.
    assert model.tiles_per_image == 6
    model.compile()
    before = [w.copy() for w in host.get_weights()]
    seen = []
    callback = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(batch)
    )
    model.fit(normal, epochs=2, batch_size=16, callbacks=[callback], verbose=0)
    assert len(seen) == 2 * 8 * 6 / 16
    after = host.get_weights()
    assert any((a != b).any() for a, b in zip(after, before, strict=True))
    assert model.calibrate(images(8, seed=3)).num_images == 8
    assert np.isfinite(model.predict(normal, verbose=0)["anomaly_map"]).all()


def test_tiles_outside_of_the_regions_are_skipped():
    labels = np.zeros(SIZE, int)
    labels[:10, :10] = 1
    model = InspectionModel(patchcore(), SIZE, regions=Regions(labels))
    assert model.tiles_per_image == 1


def test_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="must be an AnomalyModel of images"):
        InspectionModel(keras.Sequential())
    anywhere = AutoEncoder((None, None, 3), filters=(4, 4, 4))
    with pytest.raises(ValueError, match="must be built for one size"):
        InspectionModel(anywhere)
    with pytest.raises(ValueError, match="regions of 48 x 80 pixels"):
        InspectionModel(patchcore(), (64, 80), regions=two_regions())
    model = InspectionModel(patchcore(), SIZE)
    with pytest.raises(ValueError, match="leave `y` out"):
        model.fit(images(2), images(2))
    # The host may have scores of tiles.
    model.host.fit(images(2)[:, :32, :32])
    with pytest.raises(ValueError, match="that it was not trained on"):
        model.calibrate()
    with pytest.raises(ValueError, match="at least one score"):
        model.calibrate([])
    trained = InspectionModel(AutoEncoder((32, 32, 3), filters=(4, 4, 4)), SIZE)
    with pytest.raises(ValueError, match="read only once. Give an array"):
        trained.fit(iter([images(2)]))
    with pytest.raises(ValueError, match="also of `validation_data`"):
        trained.fit(images(2), validation_data=(images(2), images(2)))
    with pytest.raises(ValueError, match="without an end. Pass a part"):
        trained.fit(endless(images(2)), steps_per_epoch=2)


def endless(x):
    import tensorflow as tf

    return tf.data.Dataset.from_tensors(x).repeat()


def test_scoring_is_fitted_to_the_steps_of_an_epoch(model, normal):
    other = InspectionModel(patchcore(), SIZE, regions=two_regions())
    other.fit(endless(normal), steps_per_epoch=1)
    expected = model.calibration
    assert other.calibrate().num_images == expected.num_images == len(normal)


@pytest.mark.parametrize(("options", "count"), [({}, 6), ({"size": 8}, 3)])
def test_tiles_to_validate_with_come_in_batches(options, count):
    host = AutoEncoder((32, 32, 3), filters=(4, 4, 4))
    model = InspectionModel(host, SIZE)
    model.compile(run_eagerly=True)
    batches = []
    callback = keras.callbacks.LambdaCallback()
    callback.on_test_batch_end = lambda batch, logs=None: batches.append(batch)
    if options:
        options = {"validation_batch_size": options["size"]}
    # Of 4 images with 6 tiles each.
    model.fit(
        images(1),
        validation_data=images(4),
        batch_size=4,
        callbacks=[callback],
        verbose=0,
        **options,
    )
    assert len(batches) == count


def test_losses_are_those_of_the_tiles():
    host = AutoEncoder((32, 32, 3), filters=(4, 4, 4))
    model, x = InspectionModel(host, SIZE), images(2)
    model.compile(run_eagerly=True)
    expected = host.evaluate(model.cut(x), verbose=0)
    assert model.evaluate(x, verbose=0) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="leave `y` out"):
        model.evaluate(x, x)


def test_scoring_is_fitted_once():
    model = InspectionModel(CutPaste((32, 32, 3), base_width=2), SIZE)
    model.compile(run_eagerly=True)
    with mock.patch.object(CutPaste, "fit_scoring") as fit_scoring:
        model.fit(images(1), verbose=0)
    fit_scoring.assert_called_once()
