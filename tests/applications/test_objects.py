import keras
import numpy as np
import pytest
from scipy import stats

from keras_sspcab.applications import BackgroundAgnostic
from keras_sspcab.hosts.video_scoring import _frame_outputs
from keras_sspcab.scoring import Calibration
from tests.hosts import samples, small_host


def small():
    keras.utils.set_random_seed(0)
    return small_host("background_agnostic", base_width=2)


def crops(count):
    return samples(small(), count)


def test_objects_calibrate_one_by_one():
    model, objects = small(), crops(6)
    calibration = model.calibrate(objects, quantile=1.0, batch_size=4)
    outputs = model.predict(objects, verbose=0)
    assert calibration.num_images == 6
    assert outputs["anomaly_score"].mean() == pytest.approx(0, abs=1e-3)
    assert outputs["anomaly_score"].std() == pytest.approx(1, abs=1e-3)
    highest = outputs["anomaly_score"].max()
    assert calibration.threshold == pytest.approx(highest, abs=0.05)
    model.calibration = calibration.__class__(
        **{**calibration.to_dict(), "threshold": 0.0}
    )
    assert model.predict(objects, verbose=0)["is_anomalous"].any()


def test_with_an_index_frames_are_calibrated():
    model, objects = small(), crops(6)
    raw = model.predict_on_batch(objects)["raw_score"]
    index = {
        "video": np.array([0, 0, 0, 1, 1, 1]),
        "frame": np.array([0, 0, 1, 1, 1, 1]),
    }
    batches = [
        (
            {name: part[rows] for name, part in objects.items()},
            {name: part[rows] for name, part in index.items()},
        )
        # The frames are spread over the batches.
        for rows in ([0, 2, 3], [1, 4, 5])
    ]
    calibration = model.calibrate(batches)
    highest = [max(raw[:2]), raw[2], max(raw[3:])]
    assert calibration.num_images == 3
    assert calibration.score_mean == pytest.approx(np.mean(highest), rel=1e-5)
    assert calibration.score_std == pytest.approx(np.std(highest), rel=1e-3)
    # And so are their peaks: beyond the highest, for there are few.
    model.calibration = Calibration()
    maps = model.predict_on_batch(objects)["anomaly_map"].max(axis=(1, 2))
    peak = calibration.peak_threshold * calibration.map_std
    peak += calibration.map_mean
    tops = np.array([max(maps[:2]), maps[2], max(maps[3:])])
    factor = stats.t.ppf(0.99, 2) * np.sqrt(4 / 3)
    expected = tops.mean() + factor * tops.std(ddof=1)
    assert peak == pytest.approx(expected, rel=1e-3)


def test_frames_follow_the_decision_for_their_objects():
    model = small()
    low, high = np.zeros((4, 4), "float32"), np.full((4, 4), 5, "float32")
    boxes = np.array([[0, 0, 3, 3], [8, 8, 11, 11]])

    def flag(decision, *scored):
        model.calibration = Calibration(
            threshold=1.0, pixel_threshold=2.0, decision=decision
        )
        rows = boxes[: len(scored)]
        return bool(
            _frame_outputs(model, (16, 16), rows, scored)["is_anomalous"]
        )

    nan = float("nan")
    for decision, expected in (
        ("score", [True, False, False, True]),
        ("pixels", [False, True, False, False]),
        ("either", [True, True, False, True]),
    ):
        assert [
            flag(decision, (0.0, low), (2.0, low)),
            flag(decision, (0.0, high), (0.0, low)),
            flag(decision, (0.0, low)),
            flag(decision, (nan, low), (0.0, low)),
        ] == expected
    # Without objects, the score of a frame without any counts.
    assert flag("pixels") is False


def test_objects_must_be_dicts():
    with pytest.raises(ValueError, match=r"dicts of arrays.*Received: ndarray"):
        small().calibrate([np.zeros((2, 32, 32, 1))])
    with pytest.raises(ValueError, match="at least one score"):
        small().calibrate([])


@pytest.mark.parametrize(
    "arguments", [{"optimizer": "adam"}, {"loss": "mse"}, {"steps": 3}]
)
def test_stages_have_optimizers_and_losses_of_their_own(arguments):
    with pytest.raises(ValueError, match=f"Received: {next(iter(arguments))}"):
        small().compile(**arguments)


def test_fit_says_what_is_missing():
    model = BackgroundAgnostic((32, 32, 1), base_width=2)
    with pytest.raises(ValueError, match="has not been compiled"):
        model.fit(crops(2))
    model.compile()
    with pytest.raises(ValueError, match="takes its targets from the objects"):
        model.fit(crops(2), crops(2))
    with pytest.raises(ValueError, match="Evaluate the `training_stages"):
        model.evaluate(crops(2))


def test_objects_must_be_there_for_all_stages():
    model = small()
    with pytest.raises(ValueError, match="in 3 stages.*only once. Give a dict"):
        model.fit(iter([samples(model, 2, for_training=True)]), epochs=1)


@pytest.mark.parametrize("is_endless", [False, True])
def test_objects_must_be_there_for_the_scoring(is_endless):
    import tensorflow as tf

    model = small_host("hf2vad")
    objects = samples(model, 2)
    data, message = iter([objects]), "can be read only once"
    if is_endless:
        data = tf.data.Dataset.from_tensors(objects).repeat()
        message = "Say with `steps_per_epoch` how many"
    with pytest.raises(ValueError, match=message):
        model.fit(data, epochs=1, verbose=0)


def test_fit_runs_stages_on_arrays():
    model = small()
    model.compile(learning_rate=0.5, run_eagerly=True)
    objects = samples(model, 3, for_training=True)
    histories = model.fit(objects, epochs=2, batch_size=2, verbose=0)
    stages = [stage.name for stage in model.training_stages()]
    assert list(histories) == stages
    for history in histories.values():
        assert len(history.history["loss"]) == 2
        # Two batches an epoch: the rate falls in the middle of four steps.
        schedule = history.model.optimizer._learning_rate
        assert schedule.boundaries == [2]
        assert schedule.values[0] == 0.5


def test_the_rate_follows_the_steps_that_are_taken():
    import tensorflow as tf

    model = small()
    model.compile(run_eagerly=True)
    objects = samples(model, 3, for_training=True)
    endless = tf.data.Dataset.from_tensors(objects).repeat()
    histories = model.fit(endless, epochs=2, steps_per_epoch=2, verbose=0)
    for history in histories.values():
        assert history.model.optimizer._learning_rate.boundaries == [2]
