"""What the pages start from: small folders of data, and a trained run."""

import shutil

import keras
import numpy as np
import pytest

if keras.config.backend() != "tensorflow":
    collect_ignore_glob = ["*"]

from keras_sspcab.data import write_texture_folder
from tests.data.video_writing import write_frames, write_video
from tests.docs.pages import Reader


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """The folders that pages speak of, without runs."""
    folder = tmp_path_factory.mktemp("pages") / "data"
    sizes = {"image_size": 64, "num_test_good": 4, "num_test_defective": 5}
    write_texture_folder(folder / "screws", num_train=10, **sizes)
    write_texture_folder(folder / "other", num_train=10, seed=1, **sizes)
    shutil.move(folder / "other/train/good", folder / "more_normal")
    (folder / "new_images").mkdir()
    for number, path in enumerate(sorted((folder / "other/test").rglob("*.*"))):
        shutil.copy(path, folder / f"new_images/{number + 1}.png")
    shutil.rmtree(folder / "other")
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (10, 32, 48, 3), "uint8")
    for name in ("train/a", "train/b", "test/c", "test/d"):
        write_frames(folder / "avenue" / name, frames)
    (folder / "avenue/ground_truth").mkdir()
    for name in "cd":
        np.save(folder / f"avenue/ground_truth/{name}.npy", np.arange(10) > 6)
    write_video(folder / "new.mp4", frames, codec="mpeg4")
    return folder


def make_run(folder, command):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Reader(folder).run(command)
    return folder / "runs"


@pytest.fixture(scope="session")
def runs(data, tmp_path_factory):
    """Finished runs by their name, made when they are asked for."""
    made = {}
    options = {
        "screws": "",
        "avenue": "--model mnad --image-size 32 --epochs 1",
    }

    def get(name):
        if name not in made:
            folder = tmp_path_factory.mktemp("runs")
            (folder / name).symlink_to(data / name)
            command = f"keras-sspcab train --data {name} --run runs/{name} "
            made[name] = make_run(folder, command + options[name])
        return made[name] / name

    return get
