import json
import threading

import numpy as np
import pytest

from keras_sspcab.scoring import (
    Calibration,
    DriftComparison,
    DriftMonitor,
    DriftReference,
    input_statistics,
    join_statistics,
)

NAMES = ("brightness", "contrast", "sharpness", "black", "white", "score")


def draw(rng, count, shift=0.0, names=NAMES):
    return {name: rng.normal(shift, 1, count) for name in names}


def make_monitor(rng, count, names=NAMES):
    return DriftMonitor(DriftReference.measure(draw(rng, count, names=names)))


def first_alarm(monitor, statistics):
    """Number of the image at which the monitor tells of something, or None."""
    count = len(next(iter(statistics.values())))
    for i in range(count):
        if monitor.update({name: v[i] for name, v in statistics.items()}):
            return i + 1
    return None


# === Statistics of images ===


def textures(rng, count=3, channels=1, size=96):
    images = rng.random((count, size, size, channels)).astype("float32")
    for axis in (1, 2):
        images = (images + np.roll(images, 1, axis)) / 2
    return 0.2 + 0.6 * images


def test_statistics_are_what_they_say():
    images = np.zeros((3, 8, 8, 3), "float32")
    images[1] = 1.0
    images[2, :, ::2] = (0.2, 0.4, 0.2)
    found = input_statistics(images)
    np.testing.assert_allclose(found["brightness"], [0, 1, 2 / 15], atol=1e-6)
    np.testing.assert_allclose(found["contrast"], [0, 0, 2 / 15], atol=1e-6)
    np.testing.assert_allclose(found["black"], [1, 0, 0.5])
    np.testing.assert_allclose(found["white"], [0, 1, 0])
    np.testing.assert_allclose(found["red"], [0, 1 / 3, 0.25], atol=1e-6)
    # All neighbors to the right differ by twice the contrast, none below.
    np.testing.assert_allclose(found["sharpness"], [0, 0, 1], atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_each_change_moves_its_own_statistic(channels):
    images = textures(np.random.default_rng(0), channels=channels)
    before = input_statistics(images)
    darker = input_statistics(0.6 * images)
    np.testing.assert_allclose(
        darker["brightness"], 0.6 * before["brightness"], rtol=1e-5
    )
    np.testing.assert_allclose(
        darker["sharpness"], before["sharpness"], rtol=1e-4
    )
    blurred = (images + np.roll(images, 1, 1) + np.roll(images, 1, 2)) / 3
    assert (
        input_statistics(blurred)["sharpness"] < 0.9 * before["sharpness"]
    ).all()
    if channels == 3:
        warmer = input_statistics(images * np.float32([1.1, 1, 0.9]))
        assert (warmer["red"] > before["red"]).all()
        assert (warmer["blue"] < before["blue"]).all()


def test_large_images_are_looked_at_in_part():
    image = np.kron(
        textures(np.random.default_rng(0), size=64), np.ones((1, 8, 8, 1))
    )
    whole, small = input_statistics(image), input_statistics(image[:, ::8, ::8])
    for name in ("brightness", "contrast", "black", "white"):
        np.testing.assert_allclose(whole[name], small[name], rtol=1e-5)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 3, 8, 8, 1)),
        {"object": np.zeros(3)},
        np.zeros((0, 8, 8, 1)),
    ],
)
def test_only_images_have_statistics(images):
    assert input_statistics(images) == {}
    assert join_statistics([input_statistics(images)] * 2) == {}


# === What is normal ===


def test_it_travels_with_the_calibration():
    rng = np.random.default_rng(0)
    scores = rng.normal(5, 2, 100)
    statistics = input_statistics(textures(rng, 100, size=8))
    calibration = Calibration.measure(scores, scores, statistics=statistics)
    ranges = {each.name: each for each in calibration.reference.ranges}
    assert ranges["brightness"].mean == pytest.approx(
        statistics["brightness"].mean(), rel=1e-4
    )
    assert (ranges["score"].mean, ranges["score"].std) == pytest.approx((0, 1))
    stored = json.loads(json.dumps(calibration.summary()))
    assert Calibration.from_dict(stored) == calibration
    assert len(json.dumps(stored)) < 6000


def test_without_enough_images_there_is_no_telling():
    values = np.arange(4.0)
    statistics = {"brightness": values}
    assert Calibration.measure(values, values).reference is None
    calibration = Calibration.measure(values, values, statistics=statistics)
    assert calibration.reference is None
    assert Calibration.from_dict({"threshold": 1.0}).reference is None


def test_gray_levels_do_not_count():
    monitor = DriftMonitor(
        DriftReference.measure({"brightness": np.full(50, 0.5)})
    )
    assert not monitor.update({"brightness": np.full(500, 0.504)})
    assert monitor.update({"brightness": np.full(500, 0.51)})


# === Images as they come ===


@pytest.mark.parametrize("count", [5, 20, 50, 300])
def test_false_alarms_are_rare(count):
    """Promised is one in 100,000 images or fewer; here are 100,000."""
    rng = np.random.default_rng(count)
    alarms = [
        bool(make_monitor(rng, count).update(draw(rng, 2000)))
        or bool(first_alarm(make_monitor(rng, count), draw(rng, 500)))
        for _ in range(40)
    ]
    assert sum(alarms) <= 2


@pytest.mark.parametrize(
    ("count", "shift", "delay"),
    [(300, 1, 32), (300, 3, 12), (50, 1, 58), (50, 2, 21), (10, 3, 55)],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_shifts_are_found_as_promised(count, shift, delay, sign):
    rng = np.random.default_rng(0)
    names = ("brightness",)
    delays = []
    for _ in range(40):
        monitor = make_monitor(rng, count, names)
        monitor.update(draw(rng, 100, names=names))
        found = first_alarm(monitor, draw(rng, 500, sign * shift, names))
        delays.append(found or 500)
    assert np.median(delays) == pytest.approx(delay, rel=0.35)


def test_what_has_changed_since_when_and_how_far():
    rng = np.random.default_rng(1)
    monitor = make_monitor(rng, 200)
    for moment in range(200):
        assert not monitor.update(draw(rng, 1), time=float(moment))
    for moment in range(200, 300):
        now = {**draw(rng, 1), "sharpness": rng.normal(-3, 1)}
        monitor.update(now, time=float(moment))
    (drift,) = monitor.drifts
    assert drift.statistic == "sharpness"
    assert drift.shift == pytest.approx(-3, abs=0.7)
    assert drift.since == pytest.approx(201, abs=15)
    assert drift.since_time == drift.since - 2
    assert f"since image {drift.since}" in drift.describe()
    assert drift.describe().startswith("Images are less sharp than normal")
    assert "focus" in drift.advise()
    assert monitor.shifts["brightness"] == pytest.approx(0, abs=0.8)
    # It ends when images are again what they were.
    assert not monitor.update(draw(rng, 300))


def test_single_images_and_defects_say_nothing():
    rng = np.random.default_rng(0)
    monitor = make_monitor(rng, 200)
    for _ in range(50):
        assert not monitor.update(draw(rng, 19))
        assert not monitor.update(dict.fromkeys(NAMES, 1e6))
    assert not monitor.update(dict.fromkeys(NAMES, np.nan))


def test_only_scores_that_rise_are_told():
    rng = np.random.default_rng(0)
    monitor = make_monitor(rng, 200)
    assert not monitor.update({"score": rng.normal(-3, 1, 200)})
    (drift,) = monitor.update({"score": rng.normal(3, 1, 200)})
    assert drift.describe().startswith("Images score higher than normal")
    comparison = DriftComparison.of(monitor.reference, {"score": [-9.0] * 50})
    assert not comparison.drifts(monitor.reference)


def test_threads_may_share_it():
    rng = np.random.default_rng(0)
    monitor = make_monitor(rng, 50)
    statistics = draw(rng, 20)
    threads = [
        threading.Thread(
            target=lambda: [monitor.update(statistics) for _ in range(50)]
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert monitor.num_images == 4 * 50 * 20


# === Images in no order ===


def test_parts_add_up():
    rng = np.random.default_rng(0)
    reference = DriftReference.measure(draw(rng, 100))
    statistics = {**draw(rng, 90), "contrast": rng.normal(2, 1, 90)}
    whole = DriftComparison.of(reference, statistics)
    parts = [
        DriftComparison.of(
            reference, {n: v[i:j] for n, v in statistics.items()}
        )
        for i, j in ((0, 10), (10, 10), (10, 90))
    ]
    joined = DriftComparison.joined(parts)
    assert joined.num_images == 90
    assert joined.ranks == pytest.approx(dict(whole.ranks))
    assert joined.values == pytest.approx(dict(whole.values))
    (drift,) = joined.drifts(reference)
    assert (drift.statistic, drift.since) == ("contrast", None)
    assert drift.shift == pytest.approx(2, abs=0.4)
    assert DriftComparison.joined([]).drifts(reference) == ()


@pytest.mark.parametrize("count", [1, 10, 100, 10000])
def test_images_like_the_normal_ones_do_not_differ(count):
    rng = np.random.default_rng(count)
    for _ in range(20):
        reference = DriftReference.measure(draw(rng, 30))
        comparison = DriftComparison.of(reference, draw(rng, count))
        assert not comparison.drifts(reference)


# === A lamp that gets darker ===


def darken(images, count, rng, darkest=0.6):
    """Yields gains from 1 on, and an image drawn for each of them."""
    for gain in np.linspace(1, darkest, count):
        yield gain, gain * images[rng.integers(len(images), size=1)]


def test_a_lamp_that_gets_darker():
    rng = np.random.default_rng(0)
    lamp = rng.normal(1, 0.05, (200, 1, 1, 1)).astype("float32")
    images = textures(rng, 200, size=32) * lamp
    reference = DriftReference.measure(input_statistics(images[:100]))
    monitor = DriftMonitor(reference)
    for _ in range(1000):
        index = rng.integers(100, 200, size=1)
        assert not monitor.update(input_statistics(images[index]))
    gain = next(
        gain
        for gain, image in darken(images[100:], 1000, rng)
        if monitor.update(input_statistics(image))
    )
    assert gain > 0.93
    assert {d.statistic for d in monitor.drifts} <= {"brightness", "contrast"}
    assert 950 < monitor.drifts[0].since < 1250


def read(folder, size=128):
    """Images `(images, size, size, 3)`, half of them each."""
    from keras_sspcab.data import image_dataset, scan_image_folder

    samples = scan_image_folder(folder).train
    batches = image_dataset(samples, (size, size), batch_size=64)
    images = np.concatenate([np.asarray(batch) for batch in batches])
    return images[::2], images[1::2]


def told_at(reference, images, seed=0):
    """The light at which a lamp that gets darker is told."""
    rng = np.random.default_rng(seed)
    monitor = DriftMonitor(reference)
    for _ in range(1000):
        index = rng.integers(len(images), size=1)
        assert not monitor.update(input_statistics(images[index]))
    return next(
        gain
        for gain, image in darken(images, 1000, rng)
        if monitor.update(input_statistics(image))
    )


# Screws are alike; the light on magnetic tiles varies by a third anyway.
@pytest.mark.parametrize(
    ("data", "light"), [("mvtec_screw", 0.95), ("magnetic_tile", 0.7)]
)
def test_real_images_in_less_and_less_light(data, light, request):
    normal, others = read(request.getfixturevalue(data))
    reference = DriftReference.measure(input_statistics(normal))
    assert told_at(reference, others) > light


@pytest.mark.slow
def test_drift_is_told_before_false_alarms_double(mvtec_screw):
    from keras_sspcab.applications import MultiScalePaDiM

    normal, others = read(mvtec_screw)
    model = MultiScalePaDiM((128, 128, 3))
    model.fit(normal)
    calibration = model.calibrate()

    def flagged(gain):
        outputs = model.predict(np.float32(gain) * others, verbose=0)
        return outputs["is_anomalous"].mean()

    gain = told_at(calibration.reference, others)
    assert flagged(gain) < 2 * flagged(1)
    assert flagged(0.6) > 2 * flagged(1)
