import keras
import numpy as np
import pytest
from keras import ops
from scipy import ndimage

from keras_sspcab.losses import lucas_kanade, resolve_flow


def texture(size=48, seed=0):
    noise = np.random.default_rng(seed).random((size, size))
    smooth = ndimage.gaussian_filter(noise, 2, mode="wrap")
    return (smooth - smooth.min()) / np.ptp(smooth)


def pair(right, down, channels=1):
    """A texture, and the same moved by so many pixels."""
    first = texture()
    second = ndimage.shift(first, (down, right), order=3, mode="grid-wrap")
    return [
        np.repeat(frame[None, ..., None], channels, -1).astype("float32")
        for frame in (first, second)
    ]


@pytest.mark.parametrize("motion", [(1, 0), (0.4, -0.3), (-4, 3)])
def test_motion_of_a_texture(motion):
    flow = ops.convert_to_numpy(lucas_kanade(*pair(*motion, channels=3)))
    assert flow.shape == (1, 48, 48, 2)
    # At the border the texture comes in from the other side.
    errors = np.abs(flow[0, 8:-8, 8:-8] - np.array(motion)).max(-1)
    assert errors.mean() < 0.1


def test_motion_is_local():
    first, second = pair(0, 0)
    moved = np.roll(first, 1, axis=2)
    second[:, 24:] = moved[:, 24:]
    flow = ops.convert_to_numpy(lucas_kanade(first, second))[0, ..., 0]
    assert np.abs(flow[8:16, 8:-8]).mean() < 0.1
    assert flow[34:42, 8:-8].mean() == pytest.approx(1, abs=0.1)


def test_nothing_moves_where_nothing_can_be_seen():
    plain = np.full((2, 16, 24, 3), 0.5, "float32")
    # A flash has no direction.
    flash = ops.convert_to_numpy(lucas_kanade(plain, plain + 0.4))
    assert flash.shape == (2, 16, 24, 2)
    assert np.abs(flash).max() < 1e-3


def test_gradients_reach_the_second_frame():
    if keras.config.backend() != "tensorflow":
        pytest.skip("takes gradients with TensorFlow")
    import tensorflow as tf

    first, second = pair(1, 0)
    second = tf.constant(second)

    def loss(frame):
        return tf.reduce_mean(lucas_kanade(first, frame)[..., 0])

    with tf.GradientTape() as tape:
        tape.watch(second)
        value = loss(second)
    gradient = tape.gradient(value, second).numpy()
    assert np.isfinite(gradient).all()
    # The derivative in the direction of the gradient is its norm.
    norm = np.linalg.norm(gradient)
    step = 1e-2 * gradient / norm
    change = float(loss(second + step) - loss(second - step)) / 2e-2
    assert change == pytest.approx(norm, rel=0.05)


def test_own_estimators(tmp_path):
    first, second = pair(1, 0, channels=3)

    def difference(a, b):
        return (b - a)[..., :2]

    expected = difference(first, second)
    assert resolve_flow(difference) is difference
    inputs = [keras.Input((None, None, 3)) for _ in range(2)]
    model = keras.Model(inputs, (inputs[1] - inputs[0])[..., :2])
    model.save(tmp_path / "flow.keras")
    stacked = keras.Input((None, None, 6))
    joint = keras.Model(stacked, stacked[..., 3:5] - stacked[..., :2])
    chain = keras.Sequential([keras.Input((None, None, 6)), joint])
    for identifier in (model, str(tmp_path / "flow.keras"), joint, chain):
        flow = resolve_flow(identifier)(first, second)
        np.testing.assert_allclose(
            ops.convert_to_numpy(flow), expected, atol=1e-6
        )
    assert resolve_flow("none") is None

    class Subclassed(keras.Model):
        pass

    with pytest.raises(ValueError, match=r"functional .*Received: Subclassed"):
        resolve_flow(Subclassed())
    with pytest.raises(ValueError, match="'farneback'"):
        resolve_flow("farneback")
    with pytest.raises(ValueError, match="set_flow_estimator"):
        resolve_flow("custom")(first, second)


def test_frames_that_cannot_be_halved():
    frames = np.zeros((1, 48, 50, 1), "float32")
    with pytest.raises(ValueError, match=r"of 4. Received.*\(1, 48, 50, 1\)"):
        lucas_kanade(frames, frames)
    assert lucas_kanade(frames, frames, levels=2).shape == (1, 48, 50, 2)


@pytest.mark.parametrize(
    ("name", "value"),
    [("levels", 0), ("iterations", 0), ("window", 4), ("regularization", 0.0)],
)
def test_bad_arguments(name, value):
    with pytest.raises(ValueError, match=f"{name}={value}"):
        lucas_kanade(*pair(0, 0), **{name: value})
