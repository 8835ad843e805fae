"""Proposals, frames and files that the tests of objects share."""

import numpy as np

from keras_sspcab.data.objects import ObjectProposals, open_cube_file
from keras_sspcab.data.objects.cube_files import CubeWriter

HEIGHT, WIDTH = 32, 48

# Frames of the objects in three files.
OBJECT_FRAMES = [[0, 0, 3], [], [1, 2, 2, 2, 5, 5, 7]]


class Given(ObjectProposals):
    """Proposes boxes that are known beforehand."""

    name = "given"

    def __init__(self, *frames):
        self.frames = [np.array(f, "float64").reshape(-1, 5) for f in frames]

    @property
    def settings(self):
        return {"name": self.name, "boxes": [f.tolist() for f in self.frames]}

    def boxes(self, video):
        yield from self.frames


def draw_square(left, top, size=6):
    """Returns a gray-blue frame with one bright, textured square."""
    frame = np.full((HEIGHT, WIDTH, 3), (40, 50, 60), "uint8")
    rng = np.random.default_rng(1)
    # Neighbors differ by far more than any threshold here.
    checks = (np.indices((size, size)).sum(0) % 2)[..., None] * 100
    pattern = checks + rng.integers(120, 150, (size, size, 3))
    frame[top : top + size, left : left + size] = pattern
    return frame


def write_cubes(path, frames, seed, length=3, size=4, channels=3):
    rng = np.random.default_rng(seed)
    count = len(frames)
    writer = CubeWriter(str(path), length, size, channels, with_masks=False)
    shape = (count, length, size, size)
    content = {
        "appearance": rng.integers(0, 256, (*shape, channels), dtype="uint8"),
        "motion": rng.normal(size=(*shape, 2)).astype("float32"),
        "next_motion": rng.normal(size=(count, size, size, 2)).astype("f4"),
        "boxes": rng.random((count, 5)).astype("float32"),
        "frames": np.array(frames, "int32"),
    }
    if count:
        writer.append(**content)
    attributes = {"fingerprint": "0", "video": path.stem, "num_skipped": 0}
    attributes.update(num_frames=8, frame_size=np.array([32, 48]))
    writer.finish({}, **attributes)
    writer.close()
    return open_cube_file(path), content
