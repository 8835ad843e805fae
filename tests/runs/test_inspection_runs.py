"""Large images and regions of interest, from a folder to exports."""

import numpy as np
import pytest
from PIL import Image

from keras_sspcab.data import batching
from keras_sspcab.export import images as images_of_export
from keras_sspcab.export import load_scorer
from keras_sspcab.export.inference import Inference
from keras_sspcab.hosts import InspectionModel
from keras_sspcab.pictures.heat import REGION_COLOR
from keras_sspcab.runs import ConfigError, Run
from keras_sspcab.runs.sources import source_of
from keras_sspcab.scale import ScoringJob
from keras_sspcab.scale.shards import ShardScorer
from tests.runs.listening import Listener

pytestmark = [
    pytest.mark.filterwarnings("ignore:The threshold is"),
    pytest.mark.filterwarnings("ignore:Image statistics alone"),
    pytest.mark.filterwarnings("ignore:.*have no mask"),
]

REGIONS = """
[[region]]
name = "left"
box = [0, 0, 0.4, 1]

[[region]]
name = "right"
box = [0.6, 0, 1, 1]
quantile = 0.9
"""
SIZE = (48, 72)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Even parts before noise that is not of interest; one has a hole."""
    root = tmp_path_factory.mktemp("data") / "parts"
    rng = np.random.default_rng(0)

    def save(path, hole=None):
        pixels = 120 + rng.normal(0, 4, (*SIZE, 3))
        pixels[:, 30:42] = rng.uniform(0, 255, (SIZE[0], 12, 3))
        if hole is not None:
            pixels[20:28, hole : hole + 8] = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype("uint8")).save(path)

    for number in range(10):
        save(root / f"train/good/{number}.png")
    for number in range(4):
        save(root / f"test/good/{number}.png")
        save(root / f"test/hole/{number}.png", hole=4 + 12 * (number % 2))
    (root.parent / "regions.toml").write_text(REGIONS)
    return root


def create(path, photos, model="patchcore", **settings):
    own = {"model.weights": "none", "model.memory_size": 64}
    return Run.create(
        path,
        data=photos,
        model=model,
        settings={
            **(own if model == "patchcore" else {}),
            "inspection.tile": 32,
            "inspection.roi": str(photos.parent / "regions.toml"),
            **settings,
        },
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory, photos):
    run = create(tmp_path_factory.mktemp("runs") / "run", photos)
    run.train()
    return run


def test_the_size_of_the_images_is_found(run):
    assert run.config.data.image_size == SIZE
    model = run.model
    assert isinstance(model, InspectionModel)
    assert model.host.input_shape == (None, 32, 32, 3)
    assert [part.name for part in model.calibration.regions] == [
        "left",
        "right",
    ]


def test_defects_are_found_and_noise_outside_is_not(run):
    values = run.evaluate()
    assert values["image_auroc"] == 1.0
    assert values["false_alarm_rate"] <= 0.25


def test_regions_are_outlined(run, photos, tmp_path):
    run.evaluate()
    page = run.report().read_text("utf-8")
    assert page.count('aria-label="Regions of interest"') == 8
    [row] = run.predict([photos / "test/hole/0.png"], tmp_path / "maps")
    picture = np.asarray(Image.open(row["heat_map"])).astype(int)
    purple = (picture == REGION_COLOR).all(axis=-1)
    # Two boxes, one pixel wide: the left one ends at 28.8 of 72.
    assert purple[:, [0, 28]].all()
    assert not purple[:, 30:42].any()


def test_settings_that_do_not_fit_are_told(tmp_path, photos):
    for settings, message in (
        ({"inspection.tile": 64}, "must fit into the image"),
        ({"data.patch_size": 16}, "data.patch_size=16"),
        ({"inspection.roi": "nowhere.png"}, "nowhere.png"),
        ({"model": "mnad", "inspection.tile": 64}, "tile` is for images"),
    ):
        with pytest.raises((ConfigError, ValueError), match=message):
            create(tmp_path / "run", photos, **settings).train()


def test_images_of_several_sizes_need_one(tmp_path, photos):
    root = tmp_path / "mixed/train/good"
    root.mkdir(parents=True)
    for name, size in (("a.png", (48, 48)), ("b.png", (48, 64))):
        Image.new("RGB", size).save(root / name)
    run = create(tmp_path / "run", tmp_path / "mixed", **{"inspection.roi": ""})
    with pytest.raises(ConfigError, match=r"not of one size: .*b.png has 64"):
        run.train()


@pytest.mark.slow
def test_a_host_is_trained_on_tiles_and_continues(tmp_path, photos):
    settings = {
        "model": "autoencoder",
        "model.filters": [4, 4, 2],
        "data.patch_size": 0,
        "data.validation_fraction": 0.3,
        "training.epochs": 1,
        "training.batch_size": 4,
    }
    whole = create(tmp_path / "whole", photos, **settings)
    whole.train()
    parts = create(tmp_path / "parts", photos, **settings)
    parts.train()
    more = Run(parts.path, {"training.epochs": 2})
    more.train(resume=True)
    again = Run(whole.path, {"training.epochs": 2})
    again.train(resume=True)
    for a, b in zip(
        more.model.get_weights(), again.model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_parts_that_lie_askew_are_aligned(tmp_path, photos):
    listener = Listener()
    run = create(
        tmp_path / "run",
        photos,
        **{"inspection.align": True, "inspection.roi": ""},
    )
    run.train(progress=listener)
    # What all of them show in one place is enough.
    assert any("Images are aligned with" in text for text in listener.texts)
    assert "alignment_quality" in run.model.output


def test_few_large_images_are_in_memory_at_a_time(
    run, photos, tmp_path, monkeypatch
):
    # As if these were four times as large as what eight are taken of.
    monkeypatch.setattr(batching, "_SMALL", SIZE[0] * SIZE[1] // 4)
    sizes = []
    predict = InspectionModel.predict_on_batch

    def spy(model, images):
        sizes.append(len(images))
        return predict(model, images)

    monkeypatch.setattr(InspectionModel, "predict_on_batch", spy)
    run.predict([photos / "test"])
    run.evaluate()
    assert set(sizes) == {2}
    source = source_of(run.config)
    [images, *_] = source.scoring_dataset(source.split().train)
    assert len(images) == 2
    scorer = load_scorer(run.path)
    folder = tmp_path / "scores"
    job = ScoringJob.start([photos], None, scorer, folder)
    assert job.batch_size == 8
    many = np.zeros((9, *SIZE, 3), "float32")
    monkeypatch.setattr(images_of_export, "_MAX_PIXELS", 3 * SIZE[0] * SIZE[1])
    collect = images_of_export.collect_images
    assert len(collect(Inference(run.model), many, 64)["image"]) == 3


def test_scores_of_regions_are_columns(run, photos, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    calibration = run.model.calibration
    rows = {row["path"]: row for row in run.predict([photos / "test"])}
    scorer = load_scorer(run.path)
    job = ScoringJob.start([photos / "test"], None, scorer, tmp_path / "scores")
    ShardScorer(job, scorer).score(0)
    table = parquet.read_table(job.folder.part(0)).to_pylist()
    assert len(table) == len(rows) == 8
    for scored in table:
        row = rows[scored["path"]]
        for part in calibration.regions:
            score = row[f"region_score_{part.name}"]
            flag = row[f"region_is_anomalous_{part.name}"]
            assert flag == (score >= part.threshold)
            column = f"region_score_{part.name}"
            assert scored[column] == pytest.approx(score, rel=1e-3, abs=1e-3)
            assert scored[f"region_is_anomalous_{part.name}"] == flag
        if "hole" in scored["path"]:
            assert row["region_score_left"] > row["region_score_right"]
