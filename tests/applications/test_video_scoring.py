import numpy as np
import pytest
from PIL import Image

from keras_sspcab.applications import MNAD
from keras_sspcab.hosts import VideoStream, score_frames
from tests.applications.helpers import moving_squares

pytest.importorskip("tensorflow")

from keras_sspcab.data import resize
from keras_sspcab.data.video import Video
from keras_sspcab.preprocessing import Preprocessing
from keras_sspcab.scoring import Calibration
from tests.data.video_writing import noise, write_frames
from tests.hosts import small_host

SIZE = (16, 16)


def clips_of(frames, length=3, stride=1):
    """All clips of a video as models see them, cut by hand."""
    span = (length - 1) * stride + 1
    starts = range(len(frames) - span + 1)
    clips = [frames[start : start + span : stride] for start in starts]
    return np.stack(clips).astype("float32") / 255


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    pixels = [noise(7, SIZE, seed=1), noise(5, SIZE, seed=2)]
    found = [
        Video(name, str(write_frames(root / name, frames)), "frames")
        for name, frames in zip("ab", pixels, strict=True)
    ]
    return found, pixels


@pytest.fixture(scope="module")
def mnad():
    model = MNAD((3, *SIZE, 1), base_width=2, num_items=3)
    model.calibrate(moving_squares(8, size=16)[..., :1])
    return model


@pytest.mark.parametrize("stride", [1, 2])
def test_frames_of_videos(videos, mnad, stride):
    found = list(score_frames(mnad, videos[0], stride=stride, batch_size=2))
    first = 2 * stride
    assert [(s.video, s.frame) for s in found] == [
        *((0, frame) for frame in range(first, 7)),
        *((1, frame) for frame in range(first, 5)),
    ]
    clips = np.concatenate([clips_of(p, stride=stride) for p in videos[1]])
    expected = mnad.predict(clips, verbose=0)
    for name, values in expected.items():
        if name != "is_anomalous":
            got = np.stack([scored.outputs[name] for scored in found])
            np.testing.assert_allclose(got, values, rtol=1e-3, atol=1e-3)


def test_learning_while_scoring(videos, mnad):
    clips = np.concatenate([clips_of(pixels) for pixels in videos[1]])
    expected = mnad.predict_online(clips)
    found = list(score_frames(mnad, videos[0], update_memory=True))
    got = np.stack([scored.outputs["compactness"] for scored in found])
    np.testing.assert_allclose(got, expected["compactness"], rtol=1e-4)
    host = small_host("future_frame", input_shape=(3, *SIZE, 1))
    with pytest.raises(ValueError, match="no option named 'update_memory'"):
        next(score_frames(host, videos[0], update_memory=True))


def test_streams_need_no_look_ahead(videos, mnad):
    frames = videos[1][0]
    expected = list(score_frames(mnad, videos[0][:1]))
    stream = VideoStream(mnad)
    found = [stream.push(frame) for frame in frames]
    assert found[:2] == [None, None]
    for got, scored in zip(found[2:], expected, strict=True):
        assert got.frame == scored.frame
        np.testing.assert_allclose(
            got.outputs["anomaly_score"],
            scored.outputs["anomaly_score"],
            rtol=1e-3,
            atol=1e-3,
        )
    stream.reset()
    assert stream.push(frames[0]) is None


def test_streams_that_average(videos, mnad):
    frames = videos[1][0]
    plain = VideoStream(mnad)
    scores = [plain.push(frame) for frame in frames][2:]
    scores = [float(scored.outputs["anomaly_score"]) for scored in scores]
    calm = VideoStream(mnad, average=3)
    found = [calm.push(frame) for frame in frames][2:]
    for i, scored in enumerate(found):
        mean = np.mean(scores[max(0, i - 2) : i + 1])
        score = float(scored.outputs["anomaly_score"])
        np.testing.assert_allclose(score, mean, rtol=1e-5)
        flag = score >= mnad.calibration.threshold
        assert bool(scored.outputs["is_anomalous"]) == flag


def test_streams_resize_and_color_frames(mnad):
    stream = VideoStream(mnad)
    rng = np.random.default_rng(0)
    for _ in range(3):
        scored = stream.push(rng.integers(0, 256, (48, 64, 3), "uint8"))
    assert scored.outputs["anomaly_map"].shape == SIZE


def test_streams_take_no_floats(mnad):
    stream = VideoStream(mnad)
    with pytest.raises(ValueError, match=r"float32 of shape \(16, 16\)"):
        stream.push(np.full(SIZE, 0.5, "float32"))
    # Nothing has been kept of it.
    frames = noise(3, SIZE)
    found = [stream.push(frame) for frame in frames]
    assert [scored and scored.frame for scored in found] == [None, None, 2]


def test_streams_read_wide_frames_like_videos(videos, mnad):
    wide = [(frame[..., 0].astype("uint16") << 4) for frame in videos[1][0]]
    expected = next(score_frames(mnad, videos[0][:1]))
    before, mnad.preprocessing = mnad.preprocessing, Preprocessing(4095)
    try:
        stream = VideoStream(mnad)
        scored = [stream.push(Image.fromarray(frame)) for frame in wide[:3]]
    finally:
        mnad.preprocessing = before
    for name in ("anomaly_score", "anomaly_map"):
        np.testing.assert_allclose(
            scored[2].outputs[name],
            expected.outputs[name],
            rtol=1e-3,
            atol=1e-3,
        )


@pytest.mark.parametrize("method", ["area", "opencv"])
def test_frames_are_resized_as_the_model_says(method, mnad, tmp_path):
    frames = noise(5, (41, 60))
    folder = write_frames(tmp_path / "v", frames)
    small = np.stack([resize(frame, SIZE, method) for frame in frames])
    expected = mnad.predict_on_batch(clips_of(np.rint(255 * small)))
    before = mnad.preprocessing
    mnad.preprocessing = Preprocessing(resize=method)
    try:
        scored = list(score_frames(mnad, [Video("v", str(folder), "frames")]))
        stream = VideoStream(mnad)
        pushed = [stream.push(frame) for frame in frames][2:]
    finally:
        mnad.preprocessing = before
    for found in (scored, pushed):
        np.testing.assert_allclose(
            [one.outputs["anomaly_score"] for one in found],
            expected["anomaly_score"],
            rtol=1e-3,
            atol=1e-3,
        )


def test_streams_refuse_scores_that_are_not_finite(mnad):
    before = mnad.calibration
    mnad.calibration = Calibration(score_std=1e-44, threshold=1.0)
    try:
        stream = VideoStream(mnad, average=2)
        frames = noise(3, SIZE)
        assert stream.push(frames[0]) is stream.push(frames[1]) is None
        with pytest.raises(ValueError, match="Frame 2 has no verdict"):
            stream.push(frames[2])
    finally:
        mnad.calibration = before


def test_any_size_is_refused():
    model = MNAD((3, None, None, 1), base_width=2)
    with pytest.raises(ValueError, match="frames of any size"):
        VideoStream(model)


def test_scores_of_whole_videos(mnad):
    psnr = np.array([30.0, 20.0, 25.0])
    distance = np.array([0.1, 0.2, 0.3])
    score = mnad.score_video({"psnr": psnr, "compactness": distance})
    expected = 0.6 * np.array([0, 1, 0.5]) + 0.4 * np.array([0, 0.5, 1])
    np.testing.assert_allclose(score, expected)
    host = small_host("future_frame", input_shape=(3, *SIZE, 1))
    np.testing.assert_allclose(
        host.score_video({"raw_score": -psnr}), [0, 1, 0.5]
    )
    # A video whose frames are all alike has nothing abnormal.
    alike = {"psnr": psnr[[0, 0]], "compactness": distance[[0, 0]]}
    np.testing.assert_array_equal(mnad.score_video(alike), [0, 0])
