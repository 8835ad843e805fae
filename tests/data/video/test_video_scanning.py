import shutil

import numpy as np
import pytest
from scipy import io as scipy_io
from video_writing import noise, write_frames, write_video

from keras_sspcab.data import frame_labels, iterate_frames, scan_video_folder
from keras_sspcab.metrics import write_tracks


def masks_of(values, size=(12, 16)):
    masks = np.zeros((len(values), *size, 1), "uint8")
    masks[:, 3, 4] = np.array(values)[:, None] * 255
    return masks


def names(videos):
    return [video.name for video in videos]


def labels(folder):
    return [frame_labels(video).tolist() for video in folder.test]


@pytest.fixture
def ucsd(tmp_path):
    root = tmp_path / "UCSDped2"
    for i in (1, 2):
        write_frames(root / f"Train/Train{i:03d}", noise(4), "tif", first=1)
        write_frames(root / f"Test/Test{i:03d}", noise(4), "tif", first=1)
        masks = masks_of([0, 1, i - 1, 0])
        write_frames(root / f"Test/Test{i:03d}_gt", masks, "bmp", first=1)
    return root


def test_ucsd(ucsd):
    folder = scan_video_folder(ucsd)
    assert folder.layout == "ucsd"
    assert names(folder.train) == ["Train001", "Train002"]
    assert names(folder.test) == ["Test001", "Test002"]
    assert labels(folder) == [[0, 1, 0, 0], [0, 1, 1, 0]]
    frames = np.stack(list(iterate_frames(folder.train[0], channels=1)))
    np.testing.assert_array_equal(frames, noise(4))
    assert folder.summary().splitlines() == [
        f"{ucsd} (layout: ucsd)",
        "  split  videos  frames  labels  masks  tracks",
        "  train       2       8       -      -       -",
        "  test        2       8       -      2       -",
        "  layout: ucsd, because there is a folder Train",
    ]


def test_labels_in_the_script_of_ucsd(ucsd):
    (ucsd / "Test/UCSDped2.m").write_text(
        "a{end+1}.gt_frame = [1:2];\na{end+1}.gt_frame = [4:4];\n"
    )
    folder = scan_video_folder(ucsd)
    assert labels(folder) == [[1, 1, 0, 0], [0, 0, 0, 1]]
    assert "frame labels: Test/UCSDped2.m" in folder.summary()
    shutil.copy(ucsd / "Test/UCSDped2.m", ucsd / "Test/other.m")
    with pytest.raises(ValueError, match=r"UCSDped2\.m, other\.m .*Keep one"):
        scan_video_folder(ucsd)
    (ucsd / "Test/other.m").unlink()
    write_frames(ucsd / "Test/Test003", noise(2), "tif")
    with pytest.raises(ValueError, match="for 2 videos, and 3 videos"):
        scan_video_folder(ucsd)


def test_files_that_are_missing(ucsd):
    for missing, message in (
        ("Test/Test002_gt/004.bmp", "Received: 3 in .*Test002_gt' for the 4"),
        ("Test/Test002/002.tif", "Test002'.*without 2"),
    ):
        (ucsd / missing).unlink()
        with pytest.raises(ValueError, match=message):
            scan_video_folder(ucsd)
    shutil.rmtree(ucsd / "Test/Test002")
    with pytest.raises(ValueError, match="no test video.*Test002_gt"):
        scan_video_folder(ucsd)


def test_a_folder_above_the_data_sets(ucsd):
    with pytest.raises(ValueError, match="one folder deeper.*: UCSDped2"):
        scan_video_folder(ucsd.parent)
    folder = scan_video_folder(ucsd.parent, layout="plain")
    assert len(folder.train) == 6


def test_avenue(tmp_path):
    write_video(tmp_path / "training_videos/01.avi", noise(3, (32, 48)))
    truth = tmp_path / "ground_truth_demo/testing_label_mask"
    truth.mkdir(parents=True)
    for i in (1, 2, 10):
        path = tmp_path / f"testing_videos/{i:02d}.avi"
        write_video(path, noise(3, (32, 48)))
        cell = np.empty((1, 3), object)
        cell[0, :] = list(masks_of([0, 1, i % 2], (32, 48))[..., 0])
        scipy_io.savemat(truth / f"{i}_label.mat", {"volLabel": cell})
    folder = scan_video_folder(tmp_path)
    assert folder.layout == "avenue"
    assert names(folder.train) == ["01"]
    assert names(folder.test) == ["01", "02", "10"]
    assert {video.kind for video in folder.test} == {"file"}
    assert labels(folder) == [[0, 1, 1], [0, 1, 0], [0, 1, 0]]
    # Files are not opened.
    assert folder.summary().splitlines()[2].split()[1:3] == ["1", "?"]
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy/1_label.mat").touch()
    with pytest.raises(ValueError, match="Several folders.*copy, ground_truth"):
        scan_video_folder(tmp_path)


def test_shanghaitech(tmp_path):
    for name in ("01_001", "01_002"):
        path = tmp_path / f"training/videos/{name}.avi"
        write_video(path, noise(3, (32, 48)))
    testing = tmp_path / "testing"
    for kind in ("frame", "pixel"):
        (testing / f"test_{kind}_mask").mkdir(parents=True)
    for i, name in enumerate(("01_0014", "02_0128")):
        write_frames(testing / f"frames/{name}", noise(4), "jpg")
        masks = masks_of([0, 1, i, 0])[..., 0]
        np.save(testing / f"test_frame_mask/{name}.npy", masks.any((1, 2)))
        np.save(testing / f"test_pixel_mask/{name}.npy", masks)
    folder = scan_video_folder(tmp_path)
    assert folder.layout == "shanghaitech"
    assert names(folder.train) == ["01_001", "01_002"]
    assert names(folder.test) == ["01_0014", "02_0128"]
    assert {video.kind for video in folder.test} == {"frames"}
    assert labels(folder) == [[0, 1, 0, 0], [0, 1, 1, 0]]
    assert all(video.labels and video.masks for video in folder.test)
    # Frames come before videos.
    write_frames(tmp_path / "training/frames/01_001", noise(3), "jpg")
    folder = scan_video_folder(tmp_path)
    assert names(folder.train) == ["01_001"]
    assert "left out: training/videos" in folder.summary()


def test_frames_with_one_file_of_labels(tmp_path):
    for i, count in ((1, 3), (2, 4)):
        write_frames(tmp_path / f"training/frames/{i:02d}", noise(3), "jpg")
        write_frames(tmp_path / f"testing/frames/{i:02d}", noise(count), "jpg")
    np.save(tmp_path / "frame_labels_ped2.npy", [[0, 1, 0, 1, 1, 0, 1]])
    folder = scan_video_folder(tmp_path)
    assert labels(folder) == [[0, 1, 0], [1, 1, 0, 1]]
    assert "frame labels: frame_labels_ped2.npy" in folder.summary()
    np.save(tmp_path / "frame_labels_ped2.npy", [0, 1, 0, 1, 1, 0])
    with pytest.raises(ValueError, match="6 labels .* 2 videos of 7 frames"):
        scan_video_folder(tmp_path)
    (tmp_path / "frame_labels_ped2.npy").unlink()
    intervals = np.empty((1, 2), object)
    intervals[0, :] = [np.array([[2], [3]]), np.array([[1, 4], [2, 4]])]
    scipy_io.savemat(tmp_path / "ped2.mat", {"gt": intervals})
    assert labels(scan_video_folder(tmp_path)) == [[0, 1, 1], [1, 1, 0, 1]]


def test_plain_with_ground_truth(tmp_path):
    write_frames(tmp_path / "train/a", noise(3))
    write_video(tmp_path / "train/day 2/b.mp4", noise(3, (32, 48)), "libx264")
    for name in ("c", "d", "e", "f"):
        write_frames(tmp_path / f"test/{name}", noise(3))
    truth = tmp_path / "ground_truth"
    write_frames(truth / "c", masks_of([1, 0, 0]), first=1, prefix="frame")
    (truth / "d.csv").write_text("start,end\n1,2\n")
    np.save(truth / "e_mask.npy", masks_of([0, 0, 1])[..., 0])
    (tmp_path / "tracks").mkdir()
    (tmp_path / "tracks/d.txt").write_text("0,1,2,3,4,5\n")
    folder = scan_video_folder(tmp_path)
    assert folder.layout == "plain"
    assert names(folder.train) == ["a", "day 2/b"]
    assert [v.kind for v in folder.train] == ["frames", "file"]
    assert names(folder.test) == ["c", "d", "e", "f"]
    known = [frame_labels(video).tolist() for video in folder.test[:3]]
    assert known == [[1, 0, 0], [0, 1, 1], [0, 0, 1]]
    tracks = [video.tracks for video in folder.test]
    assert tracks == [None, str(tmp_path / "tracks/d.txt"), None, None]
    assert "test videos without ground truth: 1 (f)" in folder.summary()
    (tmp_path / "tracks/z.txt").touch()
    with pytest.raises(ValueError, match="no test video.*: z in .*tracks"):
        scan_video_folder(tmp_path)


def test_tracks_of_videos_in_folders_are_read_as_they_are_written(tmp_path):
    write_frames(tmp_path / "train/a", noise(3))
    write_frames(tmp_path / "test/cam1/01", noise(3))
    track = {"track": 0, "frame": 1, "x_min": 2, "y_min": 3, "x_max": 4}
    columns = {name: [value] for name, value in track.items()}
    tracks = {"video": np.array(["cam1/01"]), **columns, "y_max": [5]}
    write_tracks(tracks, tmp_path / "test/tracks")
    (video,) = scan_video_folder(tmp_path).test
    assert video.name == "cam1/01"
    assert video.tracks == str(tmp_path / "test/tracks/cam1%2F01.txt")
    (tmp_path / "tracks/cam1").mkdir(parents=True)
    (tmp_path / "tracks/cam1/01.txt").touch()
    with pytest.raises(ValueError, match="cam1/01.txt in .* as cam1%2F01.txt"):
        scan_video_folder(tmp_path)


def test_videos_in_folders_have_their_ground_truth_in_the_same(tmp_path):
    write_frames(tmp_path / "train/a", noise(3))
    for name in ("cam1/01", "cam1/day/02", "cam2/01"):
        write_frames(tmp_path / f"test/{name}", noise(3))
    truth = tmp_path / "ground_truth"
    write_frames(truth / "cam1/1", masks_of([1, 0, 0]))
    (truth / "cam1/day").mkdir()
    (truth / "cam1/day/02_gt.csv").write_text("start,end\n1,2\n")
    for hidden in (".notes", "@eaDir"):
        (truth / "cam1" / hidden).mkdir()
        (truth / "cam1" / hidden / "a.png").touch()
    first, second, third = scan_video_folder(tmp_path).test
    assert frame_labels(first).tolist() == [1, 0, 0]
    assert frame_labels(second).tolist() == [0, 1, 1]
    assert not third.has_ground_truth
    (truth / "cam1/03.csv").write_text("start,end\n")
    with pytest.raises(ValueError, match="no test video.*: cam1/03.csv in"):
        scan_video_folder(tmp_path)


def test_names_that_say_abnormal_are_refused(tmp_path):
    for name in ("normal/a", "abnormal/b"):
        write_frames(tmp_path / name, noise(6))
    with pytest.raises(ValueError, match=r"not all videos are.*abnormal"):
        scan_video_folder(tmp_path)
    assert len(scan_video_folder(tmp_path, "plain").train) == 2


def test_plain_with_normal_videos_only(tmp_path):
    write_frames(tmp_path / "2", noise(3))
    write_frames(tmp_path / "10", noise(3))
    (tmp_path / "1.mkv").touch()
    folder = scan_video_folder(tmp_path)
    assert names(folder.train) == ["1", "2", "10"]
    assert folder.test == ()
    assert "every video counts as normal" in folder.summary()
    # A folder of frames is a video.
    assert names(scan_video_folder(tmp_path / "10").train) == ["10"]
    (tmp_path / "2.avi").touch()
    with pytest.raises(ValueError, match="Two videos have the same name"):
        scan_video_folder(tmp_path)


def test_pictures_beside_videos_of_the_same_name_are_left_out(tmp_path):
    folder = tmp_path / "train/day 1"
    folder.mkdir(parents=True)
    for name in ("clip_0.mp4", "clip_0.jpg", "clip_1.MP4", "clip_1.MP4.png"):
        (folder / name).touch()
    write_frames(tmp_path / "train/a", noise(3))
    scanned = scan_video_folder(tmp_path)
    assert names(scanned.train) == ["a", "day 1/clip_0", "day 1/clip_1"]
    assert [v.kind for v in scanned.train] == ["frames", "file", "file"]
    assert (
        "left out: 2 pictures beside videos of the same name, such as "
        "train/day 1/clip_0.jpg"
    ) in scanned.notes
    # Others may be frames.
    (folder / "clip_2.jpg").touch()
    message = r"not both. Received: '.*day 1' with .*clip_2\.jpg and .*_0\.mp4"
    with pytest.raises(ValueError, match=message):
        scan_video_folder(tmp_path)


def test_files_that_are_no_videos_are_noted(tmp_path):
    write_frames(tmp_path / "train/a", noise(3))
    write_frames(tmp_path / "test/b", noise(3))
    for name in ("train/phone.3GP", "train/x.xyz", "test/y.zip", "z.zip"):
        (tmp_path / name).touch()
    (tmp_path / "train/readme.txt").touch()
    folder = scan_video_folder(tmp_path)
    assert names(folder.train) == ["a", "phone"]
    assert folder.notes[-1] == "left out, no videos: 1 .zip, 1 .xyz"


def test_roots_without_training_videos(tmp_path):
    for root, layout, message in (
        (tmp_path, "auto", "no training video.*holds nothing.* is train/NAME"),
        (tmp_path, "mvtec", "`layout` argument must be one of"),
        (tmp_path / "nowhere", "auto", "video folder does not exist"),
        ("memory://videos", "auto", "local disk"),
    ):
        with pytest.raises(ValueError, match=message):
            scan_video_folder(root, layout)
    # A test folder is not trained on.
    write_frames(tmp_path / "test/a", noise(3))
    write_frames(tmp_path / "ground_truth/a", noise(3))
    with pytest.raises(ValueError, match="no training video.*folders ground"):
        scan_video_folder(tmp_path)
    folder = scan_video_folder(tmp_path, require_train=False)
    assert (folder.train, names(folder.test)) == ((), ["a"])
    assert folder.test[0].has_ground_truth
    # One that is meant to hold some must.
    (tmp_path / "train").mkdir()
    (tmp_path / "train/readme.txt").touch()
    with pytest.raises(ValueError, match="no training video"):
        scan_video_folder(tmp_path, require_train=False)


@pytest.mark.parametrize(
    ("videos", "message"),
    [
        (["Train/street", "Test/fight"], "Rename Test to test"),
        (["Train/street"], "Rename Train to train"),
        (["train/street", "Test/fight"], "Rename Test to test"),
        (["Training/frames/01"], "Rename Training to training"),
        (["training/frames/01", "Testing/frames/01"], "Testing to testing"),
        (["Train/Train001", "test/Test001"], "Rename test to Test"),
        (["city/TRAIN/street"], "one folder deeper.*city"),
    ],
)
def test_case_counts_in_the_names_of_folders(tmp_path, videos, message):
    # Abnormal videos would be trained on, or test videos left out.
    for video in videos:
        write_frames(tmp_path / video, noise(2))
    with pytest.raises(ValueError, match=message):
        scan_video_folder(tmp_path)
