import keras
import numpy as np
import pytest

from keras_sspcab.data import batch_array


def images(n=7):
    return np.arange(n * 4, dtype="float32").reshape(n, 2, 2, 1)


def batches(dataset):
    return [batch.numpy() for batch in dataset]


def test_batches_in_order():
    dataset = batch_array(images(), 3)
    assert int(dataset.cardinality()) == 3
    assert [len(batch) for batch in batches(dataset)] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate(batches(dataset)), images())


def test_shuffled_anew_and_as_the_seed_says():
    keras.utils.set_random_seed(1)
    dataset = batch_array(images(20), 20, shuffle=True)
    first, second = batches(dataset)[0], batches(dataset)[0]
    assert not np.array_equal(first, second)
    keras.utils.set_random_seed(1)
    again = batches(batch_array(images(20), 20, shuffle=True))[0]
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(np.sort(first, axis=0), images(20))


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"an array of shape \(0, 2, 2, 1\)"):
        batch_array(images(0))
    with pytest.raises(ValueError, match="batch_size=0"):
        batch_array(images(), 0)
