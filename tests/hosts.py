"""Small versions of all hosts, for tests of what they share."""

from keras_sspcab.applications import APPLICATIONS

#: Arguments that make a host small, by its name.
SMALL = {
    "autoencoder": {"input_shape": (32, 32, 1), "filters": (8, 8, 4)},
    "draem": {"input_shape": (32, 32, 3), "base_width": 16, "smoothing": 3},
    "cutpaste": {"input_shape": (32, 32, 3), "base_width": 8},
    # Tracing the flow takes longer than all the rest.
    "future_frame": {
        "input_shape": (3, 32, 32, 1),
        "base_width": 4,
        "flow_estimator": "none",
    },
    "mnad": {"input_shape": (3, 32, 32, 1), "base_width": 4},
}


def small_host(name, run_eagerly=False, **arguments):
    """Builds and compiles a small version of a host.

    Tracing a training step takes longer than a few steps without.
    """
    model = APPLICATIONS[name](**{**SMALL[name], **arguments})
    model.compile(run_eagerly=run_eagerly)
    return model
