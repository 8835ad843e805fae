"""Images that are not square: stretched, padded or cropped, in all steps."""

import re
import warnings

import numpy as np
import pytest
from PIL import Image

from keras_sspcab.data import resize
from keras_sspcab.hosts import InspectionModel
from keras_sspcab.pictures.heat import REGION_COLOR, overlay
from keras_sspcab.runs import ConfigError, Run

pytestmark = [
    pytest.mark.filterwarnings("ignore:The threshold is"),
    pytest.mark.filterwarnings("ignore:Image statistics alone"),
    pytest.mark.filterwarnings("ignore:Defects in 1 masks"),
]

# Of the defect, in photos of 48 x 96: in the middle, and at the right edge.
MIDDLE, EDGE = (20, 44), (20, 86)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Wide photos with a bright left end, and one that is high."""
    root = tmp_path_factory.mktemp("data") / "wide"
    rng = np.random.default_rng(0)

    def save(name, hole=None, size=(48, 96)):
        pixels = 120 + rng.normal(0, 4, (*size, 3))
        pixels[:, :12] += 60
        mask = np.zeros(size, "uint8")
        if hole is not None:
            rows, columns = (slice(side, side + 8) for side in hole)
            pixels[rows, columns], mask[rows, columns] = 0, 255
            path = root / f"ground_truth/hole/{name.split('/')[-1]}_mask.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(path)
        path = root / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype("uint8")).save(path)

    for number in range(7):
        save(f"train/good/{number}")
    save("train/good/high", size=(96, 72))
    for number in range(3):
        save(f"test/good/{number}")
        save(f"test/hole/{number}", MIDDLE)
    save("test/hole/edge", EDGE)
    return root


def create(path, photos, fit, **settings):
    return Run.create(
        path,
        data=photos,
        model="patchcore",
        settings={
            "model.weights": "none",
            "model.memory_size": 64,
            "data.image_size": 48,
            "data.fit": fit,
            **settings,
        },
    )


@pytest.fixture(scope="module", params=["pad", "crop"])
def run(tmp_path_factory, photos, request):
    fit = request.param
    run = create(tmp_path_factory.mktemp(fit) / "run", photos, fit)
    run.train()
    return run


def fit_of(run):
    return run.config.data.fit


def test_fit_is_kept_with_the_model(run):
    model = run.model
    assert model.preprocessing.fit == fit_of(run)
    is_padded = fit_of(run) == "pad"
    assert isinstance(model, InspectionModel) == is_padded


def test_metrics_count_what_is_seen(run):
    values = run.evaluate()
    counts = values["per_defect"]["hole"]
    assert counts["num_images"] == 4
    is_cropped = fit_of(run) == "crop"
    # Defects of 8 x 8 at a scale of 1/2 or 1, of which one is cut off.
    assert any("are cut off" in note for note in values["notes"]) == is_cropped
    assert values["pixel_auroc"] > 0.95
    if not is_cropped:
        assert values["image_auroc"] == 1.0


@pytest.mark.parametrize("run", ["pad"], indirect=True)
def test_padding_decides_nothing(run, photos):
    model = run.model
    photo = np.asarray(Image.open(photos / "test/good/0.png"))
    image = resize(photo, 48, fit="pad").numpy()[None]
    counted = model.counted_pixels(image)[0]
    np.testing.assert_array_equal(
        counted.any(axis=1).nonzero()[0], range(12, 36)
    )
    assert counted[12:36].all()
    [anomaly_map] = model.predict(image, verbose=0)["anomaly_map"]
    assert (anomaly_map[~counted] == anomaly_map[counted].min()).all()
    # Statistics of the images are those of what is inside.
    ranges = {r.name: r for r in model.calibration.reference.ranges}
    brightness = ranges["brightness"]
    assert abs(brightness.mean - photo.mean() / 255) < 0.03


def test_heat_maps_lie_on_the_photo(run, photos, tmp_path):
    path = photos / "test/hole/0.png"
    [row] = run.predict([path], tmp_path / "maps")
    picture = np.asarray(Image.open(row["heat_map"])).astype(int)
    assert picture.shape == (48, 96, 3)
    outline = (picture == REGION_COLOR).all(axis=-1)
    if fit_of(run) == "crop":
        assert set(outline.nonzero()[1]) >= {24, 71}
        assert not outline[:, :24].any()
        assert not outline[:, 72:].any()
    else:
        assert not outline.any()
    photo = np.asarray(Image.open(path))
    image = resize(photo, 48, fit=fit_of(run)).numpy()[None]
    [anomaly_map] = run.model.predict(image, verbose=0)["anomaly_map"]
    how = run.model.preprocessing
    expected = overlay(
        photo,
        how.restore(anomaly_map, photo.shape[:2]),
        2 * run.model.calibration.pixel_threshold,
    )
    difference = np.abs(picture - expected.astype(int))[~outline]
    assert difference.max() <= 2
    assert "report.html" in str(run.report())


def test_stretching_much_is_told_once(tmp_path, photos):
    run = create(tmp_path / "run", photos, "stretch")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run.train()
    texts = [str(w.message) for w in caught if "stretched" in str(w.message)]
    assert len(texts) == 1
    assert re.search("2 times as high.*32x64.*pad or crop", texts[0])


def test_what_has_no_padding_says_so(tmp_path, photos):
    for settings, message in (
        ({"inspection.align": True}, "not aligned"),
        ({"data.patch_size": 32, "model": "autoencoder"}, "patch_size=32"),
        ({"model": "mnad"}, "`data.fit` is for images"),
    ):
        model = settings.pop("model", "patchcore")
        with pytest.raises(ConfigError, match=message):
            Run.create(
                tmp_path / "run",
                data=photos,
                model=model,
                settings={"data.image_size": 64, "data.fit": "pad", **settings},
            ).train()


def test_regions_lie_in_the_photo(tmp_path):
    from keras_sspcab.data import read_regions

    path = tmp_path / "a.toml"
    path.write_text("size=[96, 48]\n[[region]]\nname='a'\nbox=[24,0,72,24]")
    for fit, rows, columns in (
        ("stretch", (0, 16), (8, 24)),
        ("pad", (8, 16), (8, 24)),
        ("crop", (0, 16), (0, 32)),
    ):
        inside = read_regions(path, (32, 32), fit).inside
        assert inside.sum() == np.prod(np.diff([rows, columns]))
        assert inside[slice(*rows), slice(*columns)].all()
    mask = np.zeros((48, 96), "uint8")
    mask[:24, 24:72] = 255
    Image.fromarray(mask).save(tmp_path / "a.png")
    for fit in ("stretch", "pad", "crop"):
        np.testing.assert_array_equal(
            read_regions(tmp_path / "a.png", (32, 32), fit).inside,
            read_regions(path, (32, 32), fit).inside,
        )
    path.write_text("[[region]]\nname='a'\nbox=[0,0,1,1]")
    with pytest.raises(ValueError, match="needs size"):
        read_regions(path, (32, 32), "pad")


def test_exports_see_files_as_the_model_does(run, photos, tmp_path):
    export = pytest.importorskip("keras_sspcab.export")
    model = run.model
    paths = [photos / "test/hole/0.png", photos / "train/good/high.png"]
    images = np.stack(
        [
            resize(np.asarray(Image.open(path)), 48, fit=fit_of(run)).numpy()
            for path in paths
        ]
    )
    expected = model.predict(images, verbose=0)
    result = export.export_saved_model(model, tmp_path / "m", images=images)
    runner = export.load_runner(result.path)
    assert runner.preprocessing == model.preprocessing
    outputs = runner.run_encoded(np.array([p.read_bytes() for p in paths]))
    for name in ("anomaly_score", "anomaly_map"):
        np.testing.assert_allclose(
            outputs[name], expected[name], rtol=1e-3, atol=1e-2
        )
