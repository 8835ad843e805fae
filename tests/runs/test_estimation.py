"""What a run would take."""

import pytest

from keras_sspcab.data import write_texture_folder
from keras_sspcab.runs import estimation
from keras_sspcab.runs.parsing import load_config


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images") / "brick"
    write_texture_folder(
        root,
        image_size=32,
        num_train=20,
        num_test_good=3,
        num_test_defective=5,
        defects=("hole",),
    )
    return root


def estimate(images, monkeypatch, **settings):
    """Of a machine on which everything takes a second."""

    def one_second(work):
        work()
        return 1.0

    monkeypatch.setattr(estimation, "_seconds", one_second)
    settings = {"data.path": str(images), "data.image_size": 32, **settings}
    return estimation.estimate_run(load_config(None, settings))


@pytest.mark.slow
def test_scoring_counts_where_nothing_is_trained(images, monkeypatch):
    found = estimate(
        images,
        monkeypatch,
        **{"model.name": "padim", "model.weights": "none"},
    )
    assert found.steps == 0
    # A second for 16 images: 20 to fit to, 8 to evaluate.
    assert found.scoring_seconds == pytest.approx((20 + 8) / 16)
    assert found.hours == pytest.approx(found.scoring_seconds / 3600)


@pytest.mark.parametrize("size", [32, 0])
def test_steps_and_scores_of_a_training(images, monkeypatch, size):
    found = estimate(
        images,
        monkeypatch,
        **{
            "model.name": "autoencoder",
            "model.filters": [4, 4, 4],
            "data.image_size": size,
            "data.patch_size": 0,
            "training.epochs": 3,
            "training.batch_size": 4,
        },
    )
    # 2 of the 20 are held out.
    assert found.steps == 3 * 5
    assert found.seconds_per_step > 0
    assert found.scoring_seconds == pytest.approx((18 + 2 + 8) / 16)
    assert found.preparation_seconds == 0
