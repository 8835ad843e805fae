"""The hosts by name, for the command line, tests and documents."""

from keras_sspcab.applications.autoencoder import AutoEncoder
from keras_sspcab.applications.background_agnostic import BackgroundAgnostic
from keras_sspcab.applications.base import AnomalyModel
from keras_sspcab.applications.cutpaste import CutPaste
from keras_sspcab.applications.draem import DRAEM
from keras_sspcab.applications.future_frame import FutureFrame
from keras_sspcab.applications.hf2vad import HF2VAD
from keras_sspcab.applications.mnad import MNAD
from keras_sspcab.applications.multiscale_padim import MultiScalePaDiM
from keras_sspcab.applications.padim import PaDiM
from keras_sspcab.applications.patchcore import PatchCore

APPLICATIONS: dict[str, type[AnomalyModel]] = {
    "multiscale_padim": MultiScalePaDiM,
    "padim": PaDiM,
    "patchcore": PatchCore,
    "cutpaste": CutPaste,
    "draem": DRAEM,
    "autoencoder": AutoEncoder,
    "future_frame": FutureFrame,
    "mnad": MNAD,
    "hf2vad": HF2VAD,
    "background_agnostic": BackgroundAgnostic,
}


def get_application(name: str) -> type[AnomalyModel]:
    """Returns the class of a host.

    Args:
        name: One of the keys of `APPLICATIONS`.

    Returns:
        The class, a subclass of `AnomalyModel`.

    Raises:
        ValueError: If there is no host of that name.
    """
    if name not in APPLICATIONS:
        raise ValueError(
            f"There is no model named {name!r}. "
            f"Choose one of: {', '.join(sorted(APPLICATIONS))}"
        )
    return APPLICATIONS[name]
