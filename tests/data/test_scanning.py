import os
import shutil

import numpy as np
import pytest
import tensorflow as tf

from keras_sspcab.data import (
    ImageSample,
    check_images,
    scan_image_folder,
    scanning,
)


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
    assert [(s.label, s.defect) for s in folder.test] == [
        (1, "crack"),
        (1, "crack"),
        (1, "crack"),
        (0, "good"),
        (0, "good"),
        (1, "hole"),
    ]
    assert folder.test[1] == ImageSample(
        str(mvtec / "test/crack/001.png"),
        1,
        "crack",
        str(mvtec / "ground_truth/crack/001_mask.png"),
    )
    assert folder.test[3].mask_path is None
    assert "layout: mvtec, because there is a train folder" in folder.summary()


def test_only_train_good_is_needed(mvtec):
    shutil.rmtree(mvtec / "test")
    shutil.rmtree(mvtec / "ground_truth")
    folder = scan_image_folder(mvtec)
    assert len(folder.train) == 5
    assert folder.test == ()
    assert "test" not in folder.summary().splitlines()[1]


def test_masks_pair_by_plain_stem_and_other_extension(mvtec, write_image):
    masks = mvtec / "ground_truth/crack"
    shutil.rmtree(masks)
    write_image(masks / "000.png", size=(12, 10))
    write_image(masks / "001_mask.bmp", size=(12, 10))
    write_image(masks / "002.BMP", size=(12, 10))
    found = [s.mask_path for s in scan_image_folder(mvtec).test[:3]]
    expected = ["000.png", "001_mask.bmp", "002.BMP"]
    assert found == [str(masks / name) for name in expected]


def test_nested_defect_folders_pair_by_relative_stem(mvtec, write_image):
    for side in ("left", "right"):
        write_image(mvtec / f"test/crack/{side}/000.png")
        write_image(mvtec / f"ground_truth/crack/{side}/000_mask.png")
    test = scan_image_folder(mvtec).test
    pairs = {s.path: s.mask_path for s in test if "left" in s.path}
    assert pairs == {
        str(mvtec / "test/crack/left/000.png"): str(
            mvtec / "ground_truth/crack/left/000_mask.png"
        )
    }


def test_missing_mask_is_listed_in_the_summary(mvtec):
    (mvtec / "ground_truth/crack/001_mask.png").unlink()
    folder = scan_image_folder(mvtec)
    assert folder.test[1].mask_path is None
    image = mvtec / "test/crack/001.png"
    assert f"without a mask: 1 ({image})" in folder.summary()


def test_masks_without_image_are_named(mvtec):
    (mvtec / "test/crack/001.png").unlink()
    (mvtec / "test/hole/000.png").unlink()
    with pytest.raises(ValueError, match="2 masks have no image") as error:
        scan_image_folder(mvtec)
    assert "ground_truth/crack/001_mask.png" in str(error.value)
    assert "ground_truth/hole/000_mask.png" in str(error.value)


def test_two_masks_of_one_image_are_an_error(mvtec, write_image):
    write_image(mvtec / "ground_truth/crack/000.png")
    with pytest.raises(ValueError, match="several masks") as error:
        scan_image_folder(mvtec)
    assert "ground_truth/crack/000_mask.png" in str(error.value)


def test_a_mask_of_two_images_is_an_error(mvtec, write_image):
    write_image(mvtec / "test/crack/000.jpg")
    with pytest.raises(ValueError, match="belongs to several images"):
        scan_image_folder(mvtec)


def test_masks_of_normal_images_are_kept(mvtec, write_image):
    mask = write_image(mvtec / "ground_truth/good/001_mask.png")
    normal = scan_image_folder(mvtec).test[4]
    assert (normal.label, normal.mask_path) == (0, mask)


def test_validation_good_is_read(mvtec, write_image):
    write_image(mvtec / "validation/good/000.png")
    folder = scan_image_folder(mvtec)
    assert relative(folder.validation, mvtec) == ["validation/good/000.png"]
    assert len(folder.train) == 5


def test_what_is_left_out_is_noted(mvtec, write_image):
    write_image(mvtec / "train/bad/000.png")
    (mvtec / "test/crack/notes.txt").write_text("x")
    summary = scan_image_folder(mvtec).summary()
    assert "1 images outside of the layout: train/bad/000.png" in summary
    assert "left out, no images: 1 .txt" in summary


def test_loose_test_images_are_an_error(mvtec, write_image):
    write_image(mvtec / "test/007.png")
    with pytest.raises(ValueError, match=r"no label.*test/007\.png"):
        scan_image_folder(mvtec)


def test_train_without_good(tmp_path, write_image):
    write_image(tmp_path / "train/a.png")
    write_image(tmp_path / "train/b.png")
    with pytest.raises(ValueError, match="`train` has no folder `good`") as e:
        scan_image_folder(tmp_path)
    assert "2 files (2 .png)" in str(e.value)
    assert 'layout="plain"' in str(e.value)


def test_empty_train_good(tmp_path):
    (tmp_path / "train/good").mkdir(parents=True)
    (tmp_path / "train/good/readme.txt").write_text("x")
    with pytest.raises(ValueError, match="no image in train/good") as error:
        scan_image_folder(tmp_path)
    assert "1 files (1 .txt)" in str(error.value)
    assert ".png .jpg" in str(error.value)


def test_test_images_never_pass_for_normal_ones(mvtec):
    shutil.rmtree(mvtec / "train")
    with pytest.raises(ValueError, match="no folder train/good") as error:
        scan_image_folder(mvtec)
    assert "ground_truth, test" in str(error.value)


def test_several_data_sets_are_not_mixed(mvtec):
    with pytest.raises(ValueError, match="several data sets") as error:
        scan_image_folder(mvtec.parent)
    assert "part" in str(error.value)
    assert scan_image_folder(mvtec.parent, layout="plain").test == ()


# === The plain layout ===


def test_plain_takes_everything_as_normal(tmp_path, write_image):
    for name in ("b.PNG", "a.jpg", "deep/er/c.bmp", "deep/a.gif"):
        write_image(tmp_path / name)
    (tmp_path / "notes.txt").write_text("x")
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


def test_plain_can_be_forced(mvtec):
    folder = scan_image_folder(mvtec / "train", layout="plain")
    assert len(folder.train) == 5
    assert "because" not in folder.summary()


def test_hidden_files_are_left_out(tmp_path, write_image):
    write_image(tmp_path / "a.png")
    write_image(tmp_path / "._a.png")
    write_image(tmp_path / ".thumbnails/a.png")
    assert relative(scan_image_folder(tmp_path).train, tmp_path) == ["a.png"]


def test_relative_root(tmp_path, write_image, monkeypatch):
    write_image(tmp_path / "images/sub/a.png")
    monkeypatch.chdir(tmp_path)
    for root in ("images/", ".", "./images"):
        folder = scan_image_folder(root)
        assert folder.train[0].path == "images/sub/a.png"


def test_links_are_followed_but_not_in_circles(tmp_path, write_image):
    write_image(tmp_path / "elsewhere/x.png")
    for name in ("a", "b"):
        write_image(tmp_path / f"root/{name}/1.png")
    links = {
        "root/a/self": "root/a",
        "root/a/up": "root",
        "root/a/b": "root/b",
        "root/b/a": "root/a",
        "root/c": "elsewhere",
        "root/d": "elsewhere",
    }
    for link, target in links.items():
        (tmp_path / link).symlink_to(tmp_path / target)
    folder = scan_image_folder(tmp_path / "root")
    assert relative(folder.train, tmp_path / "root") == [
        "a/1.png",
        "a/b/1.png",
        "b/1.png",
        "b/a/1.png",
        "c/x.png",
        "d/x.png",
    ]


def test_names_with_odd_characters(tmp_path, write_image):
    path = write_image(tmp_path / "a [1]/té*st?.png")
    samples = scan_image_folder(tmp_path).train
    assert samples[0].path == path
    assert check_images(samples) == samples
    (tmp_path / os.fsdecode(b"\xff.png")).write_bytes(b"x")
    with pytest.raises(ValueError, match=r"must be UTF-8.*udcff\.png"):
        scan_image_folder(tmp_path)


# === Mistakes ===


def test_missing_folder_names_the_nearest(tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "read.me").write_text("x")
    root = tmp_path / "prats/screw"
    with pytest.raises(ValueError, match="does not exist") as error:
        scan_image_folder(root)
    assert f"root={str(root)!r}" in str(error.value)
    assert f"{str(tmp_path)!r}, which holds the folders parts" in str(
        error.value
    )


def test_file_instead_of_folder(tmp_path, write_image):
    path = write_image(tmp_path / "a.png")
    with pytest.raises(ValueError, match="is a file, not a folder") as error:
        scan_image_folder(path)
    assert path in str(error.value)


def test_folder_without_images(tmp_path):
    with pytest.raises(ValueError, match="holds nothing") as error:
        scan_image_folder(tmp_path)
    assert ".png .jpg .jpeg" in str(error.value)
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "b.txt").write_text("x")
    (tmp_path / "sub").mkdir()
    with pytest.raises(ValueError, match="There is no image below") as error:
        scan_image_folder(tmp_path)
    assert "the folders sub and 2 files (2 .txt)" in str(error.value)


@pytest.mark.parametrize("root", [None, 7, ""])
def test_root_must_be_a_path(root):
    with pytest.raises(ValueError, match=f"root={root!r}"):
        scan_image_folder(root)


def test_unknown_layout(tmp_path):
    with pytest.raises(ValueError, match="layout='coco'"):
        scan_image_folder(tmp_path, layout="coco")


# === Optional formats ===


def test_webp_and_tiff_need_tensorflow_io(
    tmp_path, write_image, has_tensorflow_io
):
    write_image(tmp_path / "a.png")
    write_image(tmp_path / "b.webp")
    write_image(tmp_path / "c.tif")
    if has_tensorflow_io:
        assert len(scan_image_folder(tmp_path).train) == 3
        return
    with pytest.raises(ValueError, match="2 images are WebP or TIFF") as error:
        scan_image_folder(tmp_path)
    assert "b.webp" in str(error.value)
    assert "c.tif" in str(error.value)
    assert 'pip install "keras-sspcab[io]"' in str(error.value)


def test_the_content_decides_about_the_format(
    tmp_path, write_image, monkeypatch
):
    monkeypatch.setattr(scanning, "tensorflow_io", lambda: None)
    png = write_image(tmp_path / "a.png")
    shutil.move(png, tmp_path / "a.tif")
    assert len(scan_image_folder(tmp_path).train) == 1
    write_image(tmp_path / "b.tif")
    with pytest.raises(ValueError, match=r"1 images are .*b\.tif"):
        scan_image_folder(tmp_path)


# === Remote file systems ===


def test_remote_folder(encode):
    image = encode(np.zeros((4, 4), "uint8"), "PNG")
    names = (
        "train/good/1.png",
        "train/good/0.png",
        "test/crack/0.png",
        "ground_truth/crack/0_mask.png",
    )
    root = "ram://scan/part"
    for name in names:
        tf.io.gfile.makedirs(f"{root}/{name.rpartition('/')[0]}")
        with tf.io.gfile.GFile(f"{root}/{name}", "wb") as file:
            file.write(image)
    folder = scan_image_folder(f"{root}/")
    assert folder.layout == "mvtec"
    assert relative(folder.train, root) == ["train/good/0.png", names[0]]
    assert folder.test[0].path == f"{root}/test/crack/0.png"
    assert folder.test[0].mask_path == f"{root}/{names[3]}"


def test_missing_remote_folder():
    with pytest.raises(ValueError, match=r"does not exist.*ram://none/x"):
        scan_image_folder("ram://none/x")


def test_unknown_scheme_names_the_extra():
    with pytest.raises(ValueError, match=r"known for nowhere://") as error:
        scan_image_folder("nowhere://bucket/part")
    assert "nowhere://bucket/part" in str(error.value)
    assert 'pip install "keras-sspcab[io]"' in str(error.value)


def test_tensorflow_io_brings_file_systems(has_tensorflow_io):
    if has_tensorflow_io:
        scanning.standardize_path("http://127.0.0.1:1/x")
        return
    with pytest.raises(ValueError, match=r"known for http://"):
        scan_image_folder("http://127.0.0.1:1/x")


# === Real data ===


@pytest.mark.data
def test_screw(mvtec_screw):
    folder = scan_image_folder(mvtec_screw)
    assert folder.layout == "mvtec"
    assert len(folder.train) == 320
    normal = [s for s in folder.test if not s.label]
    defective = [s for s in folder.test if s.label]
    assert (len(normal), len(defective)) == (41, 119)
    assert {s.defect for s in defective} == {
        "manipulated_front",
        "scratch_head",
        "scratch_neck",
        "thread_side",
        "thread_top",
    }
    for sample in defective:
        image, mask = sample.path, sample.mask_path
        expected = image.replace("/test/", "/ground_truth/")
        assert mask == expected.replace(".png", "_mask.png")
    assert "without a mask" not in folder.summary()
