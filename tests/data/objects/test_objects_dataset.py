import h5py
import numpy as np
import pytest
import tensorflow as tf
from object_videos import OBJECT_FRAMES, write_cubes
from PIL import Image

from keras_sspcab.data.objects import count_objects, cube_dataset, to_gray
from keras_sspcab.data.objects import dataset as dataset_module

COUNT = 10


def collect(dataset):
    """Returns all batches in one."""
    batches = list(dataset.as_numpy_iterator())
    return tf.nest.map_structure(lambda *parts: np.concatenate(parts), *batches)


def joined(contents, name):
    return np.concatenate([content[name] for content in contents])


def test_cubes_in_order(cubes):
    files, contents = cubes
    dataset = cube_dataset(
        [file.path for file in files], batch_size=4, with_index=True
    )
    objects, index = collect(dataset)
    assert set(objects) == {"appearance", "motion"}
    assert all(value.dtype == np.float32 for value in objects.values())
    np.testing.assert_allclose(
        objects["appearance"], joined(contents, "appearance") / 255, atol=1e-7
    )
    np.testing.assert_array_equal(objects["motion"], joined(contents, "motion"))
    assert index["video"].tolist() == [0] * 3 + [2] * 7
    assert index["frame"].tolist() == [*OBJECT_FRAMES[0], *OBJECT_FRAMES[2]]
    assert index["object"].tolist() == [*range(3), *range(7)]
    assert all(value.dtype == np.int32 for value in index.values())


@pytest.mark.parametrize("channels", [1, 3])
def test_a_function_makes_the_inputs(tmp_path, channels):
    def last_frames(cubes):
        gray = to_gray(cubes["appearance"][:, -1])
        return {"gray": gray, "after": cubes["next_motion"]}

    file, content = write_cubes(tmp_path / "a.h5", [0, 1, 1], 0, 2, 4, channels)
    objects = collect(cube_dataset(file, last_frames, batch_size=2))
    assert set(objects) == {"gray", "after"}
    pixels = content["appearance"][:, -1]
    if channels == 3:
        images = [Image.fromarray(color).convert("L") for color in pixels]
        pixels = np.stack(images)[..., np.newaxis]
    np.testing.assert_allclose(objects["gray"], pixels / 255, atol=1e-7)
    np.testing.assert_array_equal(objects["after"], content["next_motion"])


def test_shuffling_follows_from_seed_and_epoch(cubes):
    files, contents = cubes

    def order(**arguments):
        dataset = cube_dataset(
            files, batch_size=4, shuffle=True, with_index=True, **arguments
        )
        objects, index = collect(dataset)
        starts = np.array([0, 3, 3])[index["video"]] + index["object"]
        # Whatever the order, objects and index belong together.
        for row, number in enumerate(starts):
            np.testing.assert_array_equal(
                objects["motion"][row], joined(contents, "motion")[number]
            )
            assert index["frame"][row] == joined(contents, "frames")[number]
        return starts.tolist()

    first = order(seed=1, epoch=0)
    assert sorted(first) == list(range(COUNT))
    assert first != list(range(COUNT))
    assert order(seed=2, epoch=0) != first
    second = order(seed=1, epoch=1)
    assert second != first
    assert order(seed=1, epochs=2) == first + second


def test_objects_of_every_third_frame_alone(cubes):
    files, contents = cubes
    objects, index = collect(cube_dataset(files, step=3, with_index=True))
    taken = joined(contents, "frames") % 3 == 0
    assert 0 < taken.sum() < COUNT
    assert count_objects(files, step=3) == taken.sum()
    assert count_objects(files) == COUNT
    motion = joined(contents, "motion")[taken]
    np.testing.assert_array_equal(objects["motion"], motion)
    assert not (index["frame"] % 3).any()


def test_batches_are_counted_and_of_known_shape(cubes):
    dataset = cube_dataset(cubes[0], batch_size=4, epochs=2)
    assert dataset.cardinality().numpy() == 6
    assert [len(batch["motion"]) for batch in dataset] == [4, 4, 2] * 2
    assert dataset.element_spec == {
        "appearance": tf.TensorSpec((None, 3, 4, 4, 3)),
        "motion": tf.TensorSpec((None, 3, 4, 4, 2)),
    }


def test_few_files_are_open_at_a_time(cubes, monkeypatch):
    files, contents = cubes
    opened = []

    def watch(path):
        everything = h5py.h5f.OBJ_ALL
        opened.append(h5py.h5f.get_obj_count(everything, h5py.h5f.OBJ_FILE))
        return h5py.File(path, "r")

    monkeypatch.setattr(dataset_module, "_MAX_OPEN", 1)
    monkeypatch.setattr(dataset_module, "open_hdf5", watch)
    objects = collect(cube_dataset([files[0], files[2]] * 3, batch_size=1))
    expected = joined([contents[0], contents[2]] * 3, "motion")
    np.testing.assert_array_equal(objects["motion"], expected)
    assert len(opened) >= 6
    assert max(opened) <= opened[0] + 1


def test_what_is_refused(tmp_path, cubes):
    files, _ = cubes
    other, _ = write_cubes(tmp_path / "other.h5", [0], 0, size=6)
    for given, arguments, message in (
        ([*files, other], {}, r"same frames.*other\.h5"),
        (files[1], {}, r"at least one object.*v1\.h5"),
        ([], {}, "at least one file"),
        (files, {"batch_size": 0}, "batch_size="),
        (files, {"step": 0}, "step="),
    ):
        with pytest.raises(ValueError, match=message):
            cube_dataset(given, **arguments)
