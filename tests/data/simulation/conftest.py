import numpy as np
import pytest
from skimage import data


@pytest.fixture(scope="session")
def pictures():
    """RGB pictures of 8 bits, ordinary and degenerate ones."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 255, 40 * 32).astype("uint8").reshape(40, 32)
    two = np.where(rng.random((36, 40, 3)) < 0.01, 200, 17).astype("uint8")
    return {
        "photograph": data.coffee()[100:164, 200:280],
        "noise": rng.integers(0, 256, (33, 47, 3), dtype="uint8"),
        "narrow": rng.integers(90, 120, (40, 33, 3), dtype="uint8"),
        "ramps": np.stack([ramp, ramp.T.reshape(40, 32), 255 - ramp], -1),
        "constant": np.full((32, 32, 3), (0, 128, 255), "uint8"),
        "two values": two,
    }


@pytest.fixture(scope="session")
def clean():
    """Five normal images, 48 x 64, in [0, 1]."""
    rng = np.random.default_rng(1)
    return rng.uniform(0.1, 0.9, (5, 48, 64, 3)).astype("float32")
