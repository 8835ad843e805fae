import keras
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from keras_sspcab.applications import MultiScalePaDiM
from keras_sspcab.data import image_dataset, scan_image_folder
from tests.applications.helpers import noise_images

pytestmark = pytest.mark.usefixtures("eager_steps")

SMALL = {
    "input_shape": (64, 64, 3),
    "weights": None,
    "num_features": 12,
    "rank": 6,
}


@pytest.fixture(scope="module")
def fitted():
    keras.utils.set_random_seed(0)
    model = MultiScalePaDiM(**SMALL)
    model.fit(noise_images(12, 64, 64))
    model.calibrate()
    return model


def test_scales_have_their_grids(fitted):
    fine = fitted.get_layer("fine_gaussian")
    coarse = fitted.get_layer("coarse_gaussian")
    assert fine.mean.shape == (8 * 8, 12)
    assert coarse.mean.shape == (4 * 4, 12)


def test_score_is_the_sum_of_the_standardized_tops(fitted):
    new = noise_images(3, 64, 64, seed=1)
    outputs = fitted.predict(new, verbose=0)
    names = ("fine_score", "coarse_score", "fine_map", "coarse_map")
    parts = keras.Model(
        fitted.input, {name: fitted.get_layer(name).output for name in names}
    ).predict(new, verbose=0)
    for scale, share in (("fine", 0.005), ("coarse", 0.05)):
        top = np.sort(parts[f"{scale}_map"].reshape(3, -1))
        expected = top[:, -round(share * 64 * 64) :].mean(1)
        np.testing.assert_allclose(parts[f"{scale}_score"], expected, rtol=1e-5)
    total = fitted.get_layer("score_sum")
    mean, std = (keras.ops.convert_to_numpy(x) for x in (total.mean, total.std))
    expected = (parts["fine_score"] - mean[0]) / std[0]
    expected = expected + (parts["coarse_score"] - mean[1]) / std[1]
    np.testing.assert_allclose(outputs["raw_score"], expected, atol=1e-4)


def test_a_changed_square_is_found_where_it_is(fitted):
    new = noise_images(1, 64, 64, seed=4)
    changed = new.copy()
    changed[:, 40:56, 8:24] = 1.0
    before, after = (
        fitted.predict(x, verbose=0)["anomaly_map"][0] for x in (new, changed)
    )
    change = after - before
    inside = change[40:56, 8:24].mean()
    far = change[:24, 40:].mean()
    assert inside > 0
    assert inside > 2 * abs(far)


def test_two_scales_are_needed():
    with pytest.raises(ValueError, match="two scales, fine and coarse"):
        MultiScalePaDiM(**SMALL, scales=((8, 16),))


@pytest.mark.slow
@pytest.mark.data
def test_magnetic_tile_at_default_settings(magnetic_tile):
    folder = scan_image_folder(magnetic_tile)
    # A third of the images; of all, the AUROC is 0.94.
    train, test = folder.train[::3], folder.test[::3]

    def load(samples):
        return image_dataset(samples, image_size=(320, 320), batch_size=16)

    model = MultiScalePaDiM()
    model.fit(load(train))
    model.calibrate(quantile=0.95)
    outputs = model.predict(load(test), verbose=0)
    labels = np.array([sample.label for sample in test])
    assert roc_auc_score(labels, outputs["anomaly_score"]) > 0.89
    flags = outputs["is_anomalous"]
    assert flags[labels == 1].mean() > 0.35
    assert flags[labels == 0].mean() < 0.06
