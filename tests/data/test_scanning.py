import os
import warnings

import pytest

from keras_sspcab.data import (
    ImageSample,
    check_images,
    scan_image_folder,
)
from keras_sspcab.data.scanning import find_images, find_products


@pytest.fixture
def touch(tmp_path):
    """Makes empty files: a scan goes by the names of images."""

    def touch(*names, root=tmp_path):
        for name in names:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return str(path)

    return touch


def relative(samples, root):
    return [sample.path.removeprefix(f"{root}/") for sample in samples]


# === The MVTec AD layout ===


def test_mvtec_labels_defects_and_masks(mvtec):
    folder = scan_image_folder(mvtec)
    assert folder.layout == "mvtec"
    assert folder.root == str(mvtec)
    assert relative(folder.train, mvtec) == [
        f"train/good/{i:03d}.png" for i in range(5)
    ]
    assert {(s.label, s.defect, s.mask_path) for s in folder.train} == {
        (0, "good", None)
    }
    assert folder.validation == ()
    labels = [(s.label, s.defect) for s in folder.test]
    assert labels == [(1, "crack")] * 3 + [(0, "good")] * 2 + [(1, "hole")]
    assert folder.test[1] == ImageSample(
        str(mvtec / "test/crack/001.png"),
        1,
        "crack",
        str(mvtec / "ground_truth/crack/001_mask.png"),
    )
    assert folder.test[3].mask_path is None
    assert "layout: mvtec, because there is a train folder" in folder.summary()


def test_masks_pair_by_relative_stem_with_any_extension(tmp_path, touch):
    touch("train/good/0.png")
    pairs = {
        "crack/0": "crack/0.png",
        "crack/1": "crack/1_mask.bmp",
        "crack/2": "crack/2.BMP",
        "crack/left/0": "crack/left/0_mask.png",
        "good/1": "good/1_mask.png",
    }
    touch(*(f"test/{image}.jpg" for image in pairs))
    touch(*(f"ground_truth/{mask}" for mask in pairs.values()))
    test = scan_image_folder(tmp_path).test
    found = {s.path: s.mask_path for s in test}
    assert found == {
        f"{tmp_path}/test/{image}.jpg": f"{tmp_path}/ground_truth/{mask}"
        for image, mask in pairs.items()
    }
    assert test[-1].label == 0


def test_folders_of_masks_belong_to_one_image(tmp_path, touch):
    touch("train/good/0.png")
    touch(*(f"test/crack/{i}.png" for i in range(3)))
    masks = "ground_truth/crack"
    touch(f"{masks}/0/0.png", f"{masks}/0/1.png", f"{masks}/1_mask/0.png")
    touch(f"{masks}/2.png")
    folder = scan_image_folder(tmp_path)
    assert [s.mask_path for s in folder.test] == [
        f"{tmp_path}/{masks}/{name}" for name in ("0", "1_mask", "2.png")
    ]
    touch(f"{masks}/2/0.png")
    with pytest.raises(ValueError, match=r"2\.png' has several masks"):
        scan_image_folder(tmp_path)
    (tmp_path / masks / "2/0.png").unlink()
    # `0` cannot be both: one mask, and a folder of masks of several images.
    touch("test/crack/0/1.png")
    with pytest.raises(ValueError, match=r"crack/0' belong to one image as"):
        scan_image_folder(tmp_path)


def test_validation_is_read_and_what_is_left_out_is_noted(mvtec, touch):
    touch("train/bad/000.png", "test/crack/notes.txt", root=mvtec)
    touch("validation/good/000.png", root=mvtec)
    folder = scan_image_folder(mvtec)
    assert relative(folder.validation, mvtec) == ["validation/good/000.png"]
    summary = folder.summary()
    assert "1 images outside of the layout: train/bad/000.png" in summary
    assert "left out, no images: 1 .txt" in summary


def test_several_data_sets_are_not_mixed(mvtec):
    with pytest.raises(ValueError, match=r"several data sets.*part"):
        scan_image_folder(mvtec.parent)
    assert scan_image_folder(mvtec.parent, layout="plain").test == ()


# === The plain layout ===


def test_plain_takes_everything_as_normal(tmp_path, touch):
    touch("b.PNG", "a.jpg", "deep/er/c.bmp", "deep/a.gif", "notes.txt")
    touch("._a.png", ".thumbnails/a.png")
    touch("@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg", "deep/@eaDir/a.gif/M.jpg")
    folder = scan_image_folder(tmp_path)
    assert folder.layout == "plain"
    assert relative(folder.train, tmp_path) == [
        "a.jpg",
        "b.PNG",
        "deep/a.gif",
        "deep/er/c.bmp",
    ]
    assert {(s.label, s.defect) for s in folder.train} == {(0, "good")}
    assert folder.test == ()
    assert "there is no train folder" in folder.summary()
    assert "left out, no images: 1 .txt" in folder.summary()


@pytest.mark.parametrize(
    ("names", "is_refused"),
    [
        (["good/0.png", "bad/0.png"], True),
        (["OK/0.png", "scratch/0.png"], True),
        (["0.png", "NG/deep/0.png"], True),
        (["monday/OK/0.png", "tuesday/cam1/NG/0.png"], True),
        (["monday/normal/0.png", "monday/dent/0.png"], True),
        (["good/0.png", "bad/notes.txt"], False),
        (["monday/good/0.png", "monday/1.png", "bad.png"], False),
        (["monday/good/0.png", "tuesday/good/0.png"], False),
    ],
)
def test_good_and_bad_images_are_not_all_normal(
    tmp_path, touch, names, is_refused
):
    # What the folder itself is called says nothing.
    root = tmp_path / "NG"
    touch(*names, root=root)
    if is_refused:
        with pytest.raises(ValueError, match="not all images are normal.*test"):
            scan_image_folder(root)
    else:
        scan_image_folder(root)
    assert scan_image_folder(root, layout="plain").train


def test_folders_of_good_and_bad_images_are_named(tmp_path, touch):
    touch("1/OK/0.png", "1/NG/0.png", "2/0.png")
    with pytest.raises(ValueError, match=r"with 1/NG, 1/OK\. Put") as error:
        scan_image_folder(tmp_path)
    # `evaluate` takes no layout.
    assert "rename the folders, or train with layout=" in str(error.value)


def test_products_without_an_image_are_told(tmp_path, touch):
    touch("bolt/0.png", "nut/1.HEIC", "nut/raw/2.HEIC", "notes.txt")
    (tmp_path / "cap").mkdir()
    with pytest.warns(UserWarning, match=r"no image: nut \(2 \.heic\)\. Ext"):
        assert list(find_products(tmp_path)) == ["bolt"]


def test_masks_are_no_images_to_score(mvtec, tmp_path, touch, monkeypatch):
    def found(root):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            return find_images(str(root)), [str(w.message) for w in told]

    for root in (mvtec, mvtec.parent):
        images, told = found(root)
        assert str(mvtec / "test/crack/001.png") in images
        assert not any("ground_truth" in image for image in images)
        assert any("masks in ground_truth left out" in text for text in told)
    monkeypatch.chdir(mvtec)
    images, told = found(".")
    assert "test/crack/001.png" in [
        image.removeprefix("./") for image in images
    ]
    assert not any("ground_truth" in image for image in images)
    # Where nothing is tested, or they are asked for, they are images.
    assert found(mvtec / "ground_truth")[0]
    touch("own/ground_truth/0.png", "own/1.png")
    assert len(found(tmp_path / "own")[0]) == 2


def test_relative_root_and_home(tmp_path, touch, monkeypatch):
    path = touch("images/sub/a.png")
    monkeypatch.chdir(tmp_path)
    for root in ("images/", ".", "./images"):
        folder = scan_image_folder(root)
        assert folder.train[0].path == "images/sub/a.png"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert scan_image_folder("~/images").train[0].path == path


def test_links_are_followed_but_not_in_circles(tmp_path, touch):
    touch("elsewhere/x.png", "root/a/1.png", "root/b/1.png")
    links = {"a/self": "root/a", "a/up": "root", "a/b": "root/b"}
    links |= {"b/a": "root/a", "c": "elsewhere", "d": "elsewhere"}
    for link, target in links.items():
        (tmp_path / "root" / link).symlink_to(tmp_path / target)
    folder = scan_image_folder(tmp_path / "root")
    expected = "a/1.png a/b/1.png b/1.png b/a/1.png c/x.png d/x.png"
    assert relative(folder.train, tmp_path / "root") == expected.split()


def test_names_with_odd_characters(tmp_path, write_image):
    path = write_image(tmp_path / "a [1]/té*st?.png")
    samples = scan_image_folder(tmp_path).train
    assert samples[0].path == path
    assert check_images(samples) == samples
    (tmp_path / os.fsdecode(b"\xff.png")).write_bytes(b"x")
    with pytest.raises(ValueError, match=r"must be UTF-8.*udcff\.png"):
        scan_image_folder(tmp_path)


# === Mistakes ===

TRAIN = "train/good/0.png"
MASKS = "ground_truth/crack"


@pytest.mark.parametrize(
    ("names", "messages"),
    [
        ([], ["holds nothing", ".png .jpg .jpeg"]),
        (
            ["a.txt", "b.txt", "sub/c.txt"],
            ["no image below", "the folders sub and 2 files (2 .txt)"],
        ),
        (
            ["train/a.png", "train/b.png"],
            ["`train` has no folder `good`", "(2 .png)", 'layout="plain"'],
        ),
        (
            [TRAIN, "test/good/0.png", "test/ok/0.png", "test/hole/0.png"],
            ["all else in `test` defective", "test/ok."],
        ),
        (
            [TRAIN, "test/1/good/0.png", "test/1/hole/0.png"],
            ["all else in `test` defective", "test/1/good."],
        ),
        (
            ["train/good/readme.txt"],
            ["no image in train/good", "1 files (1 .txt)", ".png .jpg"],
        ),
        # Images of the test never pass for normal ones.
        (
            ["test/good/0.png", "ground_truth/crack/0.png"],
            ["no folder train/good", "ground_truth, test"],
        ),
        ([TRAIN, "test/007.png"], ["have no label", "test/007.png"]),
        (
            [TRAIN, "ground_truth/crack/1_mask.png", "ground_truth/hole/0.png"],
            ["2 masks have no image", "crack/1_mask.png", "hole/0.png"],
        ),
        (
            [
                TRAIN,
                "test/crack/0.png",
                f"{MASKS}/0.png",
                f"{MASKS}/0_mask.png",
            ],
            ["several masks", f"{MASKS}/0_mask.png"],
        ),
        (
            [TRAIN, "test/crack/0.png", "test/crack/0.jpg", f"{MASKS}/0.png"],
            ["belongs to several images"],
        ),
        # Defective images never pass for normal ones, nor these for those.
        (["Train/Good/0.png", "Test/Crack/0.png"], ["Rename Test to test."]),
        (["Train/0.png"], ["Rename Train to train."]),
        ([TRAIN, "TEST/crack/0.png"], ["Rename TEST to test."]),
        ([TRAIN, "Validation/good/0.png"], ["Validation to validation."]),
        ([TRAIN, "Ground_Truth/a/0.png"], ["Ground_Truth to ground_truth."]),
        (["train/Good/0.png"], ["Rename train/Good to train/good."]),
        ([TRAIN, "test/Good/0.png"], ["Rename test/Good to test/good."]),
        (
            ["a/Train/Good/0.png", "b/1.png"],
            ["several data sets", "folders: a"],
        ),
    ],
)
def test_mistakes_in_folders(tmp_path, touch, names, messages):
    if names:
        touch(*names)
    with pytest.raises(ValueError) as error:
        scan_image_folder(tmp_path)
    for message in (*messages, f"root={str(tmp_path)!r}"):
        assert message in str(error.value)


def test_tests_alone_are_a_folder_where_no_training_is_meant(tmp_path, touch):
    touch("test/good/0.png", "test/crack/1.png", f"{MASKS}/1_mask.png")
    folder = scan_image_folder(tmp_path, require_train=False)
    assert folder.train == ()
    found = [(sample.label, bool(sample.mask_path)) for sample in folder.test]
    assert found == [(1, True), (0, False)]
    touch("train/0.png")
    with pytest.raises(ValueError, match="`train` has no folder `good`"):
        scan_image_folder(tmp_path, require_train=False)


def test_case_counts_where_the_layout_has_a_name(tmp_path, touch):
    touch("b/0.png", "a/Test/1.png", "Train.png", "Test/notes.txt")
    assert len(scan_image_folder(tmp_path).train) == 3
    touch("Train/2.png")
    with pytest.raises(ValueError, match="Rename Train to train"):
        scan_image_folder(tmp_path)
    assert len(scan_image_folder(tmp_path, layout="plain").train) == 4
    (tmp_path / "Train.png").unlink()
    with pytest.raises(ValueError, match=r"several products.*with Train\."):
        find_products(tmp_path)


def test_missing_folder_names_the_nearest(tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "read.me").write_text("x")
    root = tmp_path / "prats/screw"
    with pytest.raises(ValueError, match="does not exist") as error:
        scan_image_folder(root)
    assert f"root={str(root)!r}" in str(error.value)
    nearest = f"{str(tmp_path)!r}, which holds the folders parts"
    assert nearest in str(error.value)
    with pytest.raises(ValueError, match=r"is a file, not a folder.*read\.me"):
        scan_image_folder(tmp_path / "read.me")


@pytest.mark.parametrize(
    ("root", "layout"), [(None, "auto"), (7, "auto"), ("", "auto"), (".", "x")]
)
def test_arguments_are_checked(root, layout):
    with pytest.raises(ValueError, match=f"root={root!r}|layout='x'"):
        scan_image_folder(root, layout)


# === Remote file systems ===


def test_unknown_scheme_names_the_extra():
    with pytest.raises(ValueError, match=r"known for nowhere://") as error:
        scan_image_folder("nowhere://bucket/part")
    assert "nowhere://bucket/part" in str(error.value)
    assert 'pip install "keras-sspcab[io]"' in str(error.value)
