import numpy as np
import pytest
from scipy import ndimage


@pytest.fixture(scope="session")
def texture():
    """Smooth gray noise, uint8 `(160, 200)`."""
    rng = np.random.default_rng(0)
    values = ndimage.gaussian_filter(rng.normal(size=(160, 200)), 2)
    values -= values.min()
    return (values / values.max() * 255).astype("uint8")


@pytest.fixture(scope="session")
def moving(texture):
    """Frames (64, 80) whose content moves 3 to the right and 2 down."""
    return np.stack(
        [
            texture[40 - 2 * t : 104 - 2 * t, 60 - 3 * t : 140 - 3 * t, None]
            for t in range(4)
        ]
    )
