import numpy as np
import pytest

from keras_sspcab import SSMCTBLayer
from keras_sspcab.metrics import macro_auc
from keras_sspcab.scoring import Calibration
from keras_sspcab.variants import ImageVariants


@pytest.mark.parametrize(
    ("make", "right"),
    [
        (lambda: Calibration(decision="Pixels"), "pixels"),
        (lambda: ImageVariants(symmetric=("Rotate",)), "rotate"),
        (lambda: SSMCTBLayer(attention="Authors"), "authors"),
        (
            lambda: macro_auc([[0, 1]], [np.arange(2.0)], single_class="Skip"),
            "skip",
        ),
    ],
)
def test_case_counts(make, right):
    with pytest.raises(ValueError, match=f"Did you mean '{right}'"):
        make()
