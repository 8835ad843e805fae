"""Which data a configuration means, and how they are read."""

import shutil

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("cv2")

from keras_sspcab.applications import Ensemble
from keras_sspcab.data import MarkedImages, write_texture_folder
from keras_sspcab.data.objects import open_cube_file
from keras_sspcab.data.video import scan_video_folder
from keras_sspcab.hosts import available_applications
from keras_sspcab.runs import ConfigError, ObjectsConfig, RunFolder
from keras_sspcab.runs.parsing import load_config
from keras_sspcab.runs.sources import config_for, source_of
from keras_sspcab.runs.sources.objects import flow_of, masks_of, proposals_of
from keras_sspcab.scoring import Calibration
from tests.data.video_writing import write_frames
from tests.hosts import small_host


def source(model, **settings):
    named = {key.replace("__", "."): value for key, value in settings.items()}
    return source_of(load_config(None, {"model.name": model, **named}))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images") / "brick"
    write_texture_folder(
        root,
        image_size=32,
        num_train=12,
        num_test_good=1,
        num_test_defective=1,
        defects=("hole",),
    )
    return root


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """A small square walks in both videos."""
    root = tmp_path_factory.mktemp("videos")
    for name, start in (("train/a", 0), ("test/x", 9)):
        frames = np.full((6, 40, 64, 1), 60, "uint8")
        for i in range(6):
            frames[i, 6:12, start + 2 * i : start + 2 * i + 6] = 200
        write_frames(root / name, frames)
    return root


@pytest.mark.parametrize(
    ("name", "count", "has_test", "held_out", "split"),
    [
        ("multiscale_padim", 10, False, 5, "validation"),
        ("multiscale_padim", 9, False, 0, "train"),
        ("multiscale_padim", 12, True, 0, "test"),
        # Which needs some to calibrate on.
        ("autoencoder", 9, False, 4, "validation"),
        ("autoencoder", 12, True, 6, "test"),
    ],
)
def test_held_out_is_what_a_host_needs_or_what_there_is_else_to_evaluate(
    name, count, has_test, held_out, split, images, tmp_path
):
    data = images
    if not has_test:
        data = tmp_path / "plain"
        data.mkdir()
        for path in sorted((images / "train" / "good").iterdir())[:count]:
            shutil.copy(path, data)
    of_run = source(name, data__path=str(data), data__validation_fraction=0.5)
    folder = of_run.split()
    assert len(folder.train) == count - held_out
    assert len(folder.validation) == held_out
    assert of_run.held_out() == folder.validation
    samples, scored, _ = of_run.samples_to_evaluate()
    assert scored == split
    assert samples == getattr(folder, split)


def save(*paths):
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.zeros((8, 8), "uint8")
        pixels[0, 0] = number
        Image.fromarray(pixels).save(path)


def begun_run(path, model="padim", **settings):
    """A run that has noted its data, as the training does, and its source."""
    config = source(model, **settings).config
    run = RunFolder(str(path))
    run.start(config)
    of_run = source_of(config, run)
    folder = of_run.split()
    noted = {"root": folder.root, "training_images": of_run.fingerprint(folder)}
    run.update_record(data=noted)
    return run, of_run


@pytest.mark.parametrize("model", ["padim", "autoencoder"])
@pytest.mark.parametrize("is_there_first", [False, True])
def test_what_is_held_out_stays_when_tests_come_or_go(
    tmp_path, model, is_there_first
):
    root = tmp_path / "screws"
    test = [root / "test/good/a.png", root / "test/hole/b.png"]
    save(*(root / f"train/good/{number}.png" for number in range(50)))
    if is_there_first:
        save(*test)
    _, of_run = begun_run(tmp_path / "run", model, data__path=str(root))
    before = of_run.split()
    has_held_out = model == "autoencoder" or not is_there_first
    assert len(before.validation) == (5 if has_held_out else 0)
    if is_there_first:
        shutil.rmtree(root / "test")
    else:
        save(*test)
    after = of_run.split()
    assert after.train == before.train
    assert after.validation == before.validation == of_run.held_out()
    # As `train --resume` looks at them.
    assert of_run.is_of_training(of_run.scan())
    # Of other samples, or without a record, the test decides.
    save(root / "train/good/50.png")
    is_held_out = model == "autoencoder" or is_there_first
    assert bool(of_run.split().validation) == is_held_out
    assert not of_run.is_of_training(of_run.scan())


def evaluated(run, path):
    """Labels of what a folder is evaluated on, which that is, and a source."""
    config = run.config
    data = config.data.model_copy(update={"path": str(path)})
    of_run = source_of(config.model_copy(update={"data": data}), run)
    samples, split, root = of_run.samples_to_evaluate()
    assert root == str(path)
    return [sample.label for sample in samples], split, of_run


def test_plain_is_said_of_what_is_trained_on(tmp_path):
    own, labeled = tmp_path / "own", tmp_path / "labeled"
    # Which is refused without a layout.
    save(*(own / f"{name}/{n}.png" for name in ("good", "new") for n in "012"))
    save(
        labeled / "train/good/0.png",
        labeled / "test/good/0.png",
        labeled / "test/hole/1.png",
        labeled / "ground_truth/hole/1_mask.png",
    )
    run, of_run = begun_run(
        tmp_path / "run", data__path=str(own), data__layout="plain"
    )
    labels, split, other = evaluated(run, labeled)
    assert (labels, split) == ([0, 1], "test")
    # What image statistics are compared with.
    assert len(other.scan(str(labeled)).train) == 1
    assert len(other.scan(str(own)).train) == 6
    assert other.trained_on(of_run.scan().train)
    labels, split, _ = evaluated(run, own)
    assert (labels, split) == ([0] * 6, "train")
    shutil.move(own, tmp_path / "moved")
    labels, split, _ = evaluated(run, tmp_path / "moved")
    assert (labels, split) == ([0] * 6, "train")
    save(tmp_path / "more/0.png", tmp_path / "more/monday/1.png")
    labels, split, _ = evaluated(run, tmp_path / "more")
    assert (labels, split) == ([0] * 2, "normal")
    save(tmp_path / "more/NG/2.png")
    with pytest.raises(ValueError, match="not all images are normal"):
        evaluated(run, tmp_path / "more")


def test_images_beyond_the_memory_can_be_read_in_parts(images, monkeypatch):
    of_run = source("padim", data__path=str(images))
    folder = of_run.split()
    kept = of_run.scoring_dataset(folder.train, is_reread=True)
    assert not hasattr(kept, "part")
    monkeypatch.setattr("keras_sspcab.runs.sources.images._MEMORY_LIMIT", 0)
    with pytest.warns(UserWarning, match="read again"):
        read = of_run.scoring_dataset(folder.train, is_reread=True)
    whole = np.concatenate([batch.numpy() for batch in kept])
    some = np.concatenate([batch.numpy() for batch in read.part([7, 2, 3])])
    np.testing.assert_array_equal(np.concatenate([*read]), whole)
    np.testing.assert_array_equal(some, whole[[7, 2, 3]])
    assert len(read) == len(kept)


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_tests_alone_are_enough_to_evaluate_on(tmp_path, on_error):
    root = tmp_path / "screws"
    save(*(root / f"train/good/{number}.png" for number in range(3)))
    run, _ = begun_run(
        tmp_path / "run", data__path=str(root), data__on_error=on_error
    )
    tests = tmp_path / "monday"
    save(
        tests / "test/good/0.png",
        tests / "test/hole/1.png",
        tests / "ground_truth/hole/1_mask.png",
    )
    labels, split, of_run = evaluated(run, tests)
    assert (labels, split) == ([0, 1], "test")
    assert of_run.held_out() == ()
    with pytest.raises(ValueError, match="no folder train/good"):
        of_run.split()
    marked = MarkedImages(tmp_path / "marked")
    marked.add(tests / "test/hole/1.png", "missed")
    assert evaluated(run, marked.path)[:2] == ([1], "test")


def test_test_videos_alone_are_enough_to_evaluate_on(videos, tmp_path):
    shutil.copytree(videos / "test", tmp_path / "test")
    of_tests = source("mnad", data__path=str(tmp_path))
    samples, split, _ = of_tests.samples_to_evaluate()
    assert ([video.name for video in samples], split) == (["x"], "test")
    assert of_tests.held_out() == ()
    with pytest.raises(ValueError, match="no training video"):
        of_tests.split()


@pytest.mark.parametrize(
    ("shape", "size", "turns"),
    [((32, 32), 64, 4), ((32, 32), [32, 64], 2), ((32, 40), 64, 2)],
)
def test_only_squares_are_turned_by_90_degrees(shape, size, turns, tmp_path):
    Image.fromarray(np.zeros(shape, "uint8")).save(tmp_path / "a.png")
    of_run = source(
        "padim",
        data__path=str(tmp_path),
        data__image_size=size,
        data__symmetric="rotate",
    )
    variants = of_run.variants(of_run.scan())
    height, width = of_run.data.image_size
    zeros = np.zeros((1, height, width, 3))
    assert len(variants.symmetric_of(zeros)) == turns
    (batch,) = of_run.training_datasets(of_run.scan())(0)
    assert batch.shape == (1, height, width, 3)


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        ("mnad", {"data__patch_size": 16}, "is for images"),
        ("mnad", {"data__cache": "memory"}, "on disk, not in memory"),
        ("background_agnostic", {"data__flip": True}, r"data\.flip"),
        ("mnad", {"data__symmetric": ["flip"]}, "is for images"),
        ("autoencoder", {"data__brightness": 0.1}, "of frozen features"),
        ("background_agnostic", {"data__stride": 2}, r"data\.stride"),
        ("hf2vad", {"data__resize": "area"}, r"data\.resize"),
        (
            "background_agnostic",
            {"data__image_size": [32, 64]},
            "must be one number",
        ),
        ("hf2vad", {"objects__masks": "motion"}, r"objects\.masks"),
        ("padim", {"inspection__overlap": 0.4}, "is for tiles"),
        ("padim", {"inspection__max_angle": 30}, "images that are aligned"),
        ("padim", {"evaluation__smoothing": "median"}, "is for videos"),
        ("draem", {"evaluation__iou_threshold": 0.2}, "is for videos"),
        ("padim", {"data__clip_length": 3}, "is for videos"),
        ("padim", {"objects__min_area": 3}, "is for objects of videos"),
        ("mnad", {"evaluation__masks": "whole"}, "is for images"),
    ],
)
def test_settings_of_other_data_are_refused(model, settings, message):
    with pytest.raises(ConfigError, match=message):
        source(model, **settings).check()


def test_objects_without_effect_are_told():
    with pytest.warns(UserWarning, match=r"ignores objects\.min_area$"):
        source("mnad", objects__min_area=3, objects__folder="x").check()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("model", available_applications())
def test_defaults_of_every_host_are_its_own(model):
    source(model).check()


@pytest.mark.parametrize(
    ("model", "files", "message"),
    [
        (
            "multiscale_padim",
            ["train/a.mp4", "test/b.mp4"],
            "holds videos, such as test/b.mp4, and the model "
            "'multiscale_padim' learns from images. Choose one for videos as "
            "`model.name`: background_agnostic, future_frame, hf2vad, mnad",
        ),
        ("padim", ["a.avi"], "holds videos, such as a.avi"),
        ("padim", ["Train/Train001/001.tif", "Test/Test001/001.tif"], "videos"),
        ("padim", ["training/frames/01/000.jpg"], "videos"),
        (
            "padim",
            ["train/01/000.jpg", "train/02/000.jpg"],
            "Normal images belong into train/good. If these are frames",
        ),
        ("mnad", ["train/good/0.png", "test/hole/1.png"], "holds images, such"),
        ("mnad", ["Train/Good/0.png", "Test/Hole/1.png"], "holds images"),
        ("hf2vad", ["train/good/0.png"], "autoencoder, .*padim, patchcore"),
    ],
)
def test_folders_for_other_models_are_told(tmp_path, model, files, message):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ConfigError, match=message):
        source(model, data__path=str(tmp_path)).scan()


def test_images_may_be_frames_and_layouts_decide(tmp_path):
    write_frames(tmp_path / "train" / "good", np.zeros((3, 16, 16, 1), "uint8"))
    path = str(tmp_path)
    with pytest.raises(ConfigError, match="holds images"):
        source("mnad", data__path=path).scan()
    videos = source("mnad", data__path=path, data__layout="plain").scan()
    assert [video.name for video in videos.train] == ["good"]
    frames = source("mnad", data__path=f"{path}/train/good").scan()
    assert len(frames.train) == 1
    images = source("padim", data__path=f"{path}/train/good").scan()
    assert len(images.train) == 3


def test_cameras_or_videos_may_lie_below_good(tmp_path):
    for camera in "12":
        for part in ("train/good", "test/hole"):
            frames = np.zeros((3, 16, 16, 1), "uint8")
            write_frames(tmp_path / part / f"cam{camera}", frames)
    path = str(tmp_path)
    images = source("padim", data__path=path).scan()
    assert (len(images.train), len(images.test)) == (6, 6)
    videos = source("mnad", data__path=path).scan()
    assert [v.name for v in videos.train] == ["good/cam1", "good/cam2"]


def test_runs_can_share_what_is_cut_out(videos, tmp_path):
    of_run = source(
        "background_agnostic",
        objects__folder=str(tmp_path / "shared"),
        objects__min_area=20,
    )
    cubes = of_run.cut_out(scan_video_folder(videos).test)
    assert {open_cube_file(cube.path).name for cube in cubes} == {"x"}
    assert all(c.path.startswith(str(tmp_path / "shared")) for c in cubes)


def test_masks_are_of_what_moves_or_of_files(videos, tmp_path):
    assert masks_of(ObjectsConfig()) is None
    with pytest.raises(ValueError, match="folder of masks"):
        masks_of(ObjectsConfig(masks=str(tmp_path / "none")))
    of_run = source(
        "background_agnostic",
        data__image_size=32,
        objects__masks="motion",
        objects__min_area=20,
    )
    make = of_run.training_datasets(scan_video_folder(videos))
    (batch,) = make(0).take(1)
    assert 0 < np.mean(batch["mask"]) < 1


def test_boxes_and_flows_come_from_files(tmp_path):
    (tmp_path / "boxes").mkdir()
    (tmp_path / "boxes/x.txt").write_text("0,1,2,10,12,0.9\n", "utf-8")
    path = str(tmp_path / "boxes")
    alone = proposals_of(ObjectsConfig(boxes=path, with_motion=False))
    assert alone.name == "files"
    assert alone.settings["min_confidence"] == 0.5
    assert proposals_of(ObjectsConfig(boxes=path)).name == "files+motion"
    with pytest.raises(ValueError, match="folder of flows"):
        flow_of(ObjectsConfig(flow=str(tmp_path / "none")))


def test_a_model_alone_says_what_it_looks_at():
    data = config_for(small_host("background_agnostic")).data
    assert data.image_size == (32, 32)
    assert (data.channels, data.clip_length) == (1, 1)
    assert config_for(small_host("mnad")).data.clip_length == 3
    # One that has no name as a host.
    members = [small_host("autoencoder")]
    members[0].calibration = Calibration(threshold=1.0)
    data = config_for(Ensemble(members)).data
    assert data.image_size == members[0].input_shape[1:3]


@pytest.mark.parametrize("model", ["future_frame", "hf2vad"])
def test_white_of_frames_with_16_bits(tmp_path, model):
    frames = np.full((6, 40, 64, 1), 600, "uint16")
    for i in range(6):
        frames[i, 6:12, 2 * i : 2 * i + 6] = 3000
    frames[0, 0, 0] = 4095
    write_frames(tmp_path / "train/a", frames)
    write_frames(tmp_path / "test/x", frames * 2)
    size = 16 if model == "hf2vad" else (40, 64)
    given = source(
        model, data__path=str(tmp_path), data__image_size=size, data__channels=1
    )
    folder = given.scan()
    given.preprocessing = given.measure_preprocessing(folder)
    assert given.preprocessing.white_level == 4095
    if model == "hf2vad":
        (file,) = given.cut_out(folder.train)
        pixels = file.read("appearance")
    else:
        clips = list(given.scoring_dataset(folder.train))
        pixels = clips[0].numpy() * 255
    assert pixels.max() == pytest.approx(255 if model != "hf2vad" else 187)
    # It is white for whatever the model scores.
    (video,) = given.scan().test
    with pytest.raises(ValueError, match="0 to 4095, the white.*8190"):
        given.check_samples([video], "raise")
