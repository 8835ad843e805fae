"""Settings that suit a model, and those of the demonstration."""

from typing import Any

_FEATURES: dict[str, dict[str, Any]] = {
    "data": {"patch_size": 0},
    "model": {"sspcab": "none"},
    "training": {"epochs": 5, "batch_size": 16},
    # Scores of all normal images are at hand, not those of a tenth.
    "calibration": {"quantile": 0.95},
}

# The numbers to tune for a kind of model, by section: they apply where neither
# the file nor the command line says otherwise.
MODEL_DEFAULTS: dict[str, dict[str, dict[str, Any]]] = {
    # Small defects in large images: the largest smoothed error counts.
    "autoencoder": {
        "model": {"sspcab": "late", "pooling": "max", "smoothing": 11}
    },
    # An eighth of the paper's width: a step takes seconds on a CPU.
    "draem": {
        "data": {"patch_size": 0},
        "model": {"base_width": 16},
        "training": {"epochs": 100, "batch_size": 8},
    },
    # Pretrained and frozen: two minutes on a CPU. The width is for those who
    # choose the ResNet-18 instead.
    "cutpaste": {
        "data": {"patch_size": 0},
        "model": {"backbone": "efficientnet_lite0", "base_width": 16},
        "training": {"epochs": 5, "batch_size": 16},
    },
    # Pretrained features; only a block is trained, and it learns fast.
    "multiscale_padim": _FEATURES
    | {"data": {"patch_size": 0, "image_size": 320}},
    "padim": _FEATURES,
    "patchcore": _FEATURES,
    # Frames of video; the batch is the papers'.
    "future_frame": {
        "data": {"patch_size": 0},
        "model": {"base_width": 8},
        "training": {"epochs": 20, "batch_size": 4},
    },
    "mnad": {
        "data": {"patch_size": 0},
        "model": {"base_width": 8},
        "training": {"epochs": 20, "batch_size": 4},
    },
    # Crops of objects; epochs are those of each stage. Scores keep their scale
    # from video to video, as the papers have it.
    "background_agnostic": {
        "data": {
            "image_size": 64,
            "channels": 1,
            "patch_size": 0,
            "clip_length": 1,
        },
        "model": {"base_width": 8},
        "training": {"epochs": 10, "batch_size": 64},
        "evaluation": {
            "normalization": "none",
            "smoothing": "gaussian",
            "smoothing_size": 15.0,
        },
    },
    # A quarter of the paper's widths and a tenth of its slots.
    "hf2vad": {
        "data": {
            "image_size": 32,
            "channels": 3,
            "patch_size": 0,
            "clip_length": 5,
        },
        "model": {"root_width": 8, "num_slots": 200, "base_width": 16},
        "training": {"epochs": 10, "batch_size": 64},
        "evaluation": {
            "normalization": "none",
            "smoothing": "median",
            "smoothing_size": 17.0,
        },
    },
}

#: Where a comparison puts the block in hosts that have none by default.
PLACES: dict[str, str] = {
    "multiscale_padim": "features",
    "padim": "features",
    "patchcore": "features",
}

# What `demo` does: arguments of `write_texture_folder`, and settings that apply
# to textures, and to all data.
DEMO: dict[str, dict[str, Any]] = {
    "texture": {},
    "texture_settings": {"data.channels": 1},
    "settings": {},
}
DEMO_FAST: dict[str, dict[str, Any]] = {
    "texture": {
        "image_size": 64,
        "num_train": 24,
        "num_test_good": 8,
        "num_test_defective": 10,
    },
    "texture_settings": {"data.channels": 1},
    "settings": {"data.image_size": 64},
}
