import numpy as np
import pytest
from object_videos import HEIGHT, OBJECT_FRAMES, WIDTH, write_cubes
from video_writing import write_frames

from keras_sspcab.data import make_video


@pytest.fixture
def write(tmp_path):
    """Writes frames as a video."""

    def write(frames, name="clip"):
        return make_video(write_frames(tmp_path / name, np.stack(frames)))

    return write


@pytest.fixture
def noisy(write):
    """A video of seven frames, all different at every pixel."""
    rng = np.random.default_rng(3)
    frames = rng.integers(0, 256, (7, HEIGHT, WIDTH, 3), dtype="uint8")
    return write(frames, "noisy"), frames


@pytest.fixture
def cubes(tmp_path):
    """Three files, the second one without objects, and their content."""
    written = [
        write_cubes(tmp_path / f"v{i}.h5", frames, i)
        for i, frames in enumerate(OBJECT_FRAMES)
    ]
    return [file for file, _ in written], [content for _, content in written]
