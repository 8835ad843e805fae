import pytest

from keras_sspcab.compare.kinds import KINDS, canonical_name
from keras_sspcab.compare.published import MEAN, PUBLISHED, published

IMAGE = KINDS["image"]
MVTEC = [
    *("carpet", "grid", "leather", "tile", "wood"),
    *("bottle", "cable", "capsule", "hazelnut", "metal_nut"),
    *("pill", "screw", "toothbrush", "transistor", "zipper"),
]


def test_classes_are_grouped_in_a_fixed_order():
    classes = ["zipper", "mine", "brick", "metal nut", "mvtec_Tile"]
    assert IMAGE.grouped(classes) == {
        "texture": ["brick", "mvtec_Tile"],
        "object": ["zipper", "metal nut"],
        "other": ["mine"],
    }
    assert {k: len(v) for k, v in IMAGE.grouped(MVTEC).items()} == {
        "texture": 5,
        "object": 10,
    }


def test_metrics_are_chosen_by_name():
    keys = [metric.key for metric in IMAGE.choose_metrics()]
    assert keys == ["pixel_auroc", "pixel_ap", "image_auroc", "aupro"]
    chosen = IMAGE.choose_metrics(["image_ap", "aupro", "image_ap"])
    assert [metric.title for metric in chosen] == ["detection AP", "AUPRO"]
    with pytest.raises(
        ValueError, match="no metric named 'auroc'.*image_auroc"
    ):
        IMAGE.choose_metrics(["auroc"])


# === The paper's figures ===


@pytest.mark.parametrize("host", PUBLISHED)
def test_published_means_are_those_of_the_published_classes(host):
    for metric, by_class in PUBLISHED[host].items():
        classes = {name for name in by_class if name != MEAN}
        assert classes == set(MVTEC)
        for side in (0, 1):
            mean = sum(by_class[name][side] for name in classes) / 15
            # They are rounded to one digit, and perhaps twice.
            is_odd = (host, metric, side) == ("draem", "pixel_ap", 1)
            tolerance = 0.5 if is_odd else 0.1
            assert mean == pytest.approx(by_class[MEAN][side], abs=tolerance)


def test_published_figures_are_found_by_any_spelling():
    assert published("draem", "pixel_ap", "screw") == (58.2, 72.0)
    assert published("draem", "image_auroc", "mvtec_screw") == (93.9, 97.9)
    assert published("cutpaste", "image_auroc", "Metal nut") == (99.3, 99.6)
    assert published("cutpaste:ensemble", "image_auroc", "cable") == (
        81.2,
        83.6,
    )
    assert published("cutpaste", "pixel_ap", "screw") is None
    assert published("autoencoder", "image_auroc", "screw") is None
    assert published("draem", "image_auroc", "brick") is None


def test_names_are_those_of_the_data_set():
    assert canonical_name("Metal Nut") == "metal_nut"
    assert canonical_name("mvtec_metal-nut") == "metal_nut"
