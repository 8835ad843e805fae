"""What all layers have in common: config, shapes, dtypes, data formats."""

import keras
import numpy as np
import pytest
from keras.ops import convert_to_numpy as numpy

from keras_sspcab import layers, scoring
from keras_sspcab.regions import Region, Regions

REGIONS = Regions(np.arange(48).reshape(8, 6) % 3, (Region("a"), Region("b")))

# How each layer is made, and the shapes of its inputs.
MAPS = (2, 8, 6, 4)
LAYERS = {
    "AttentionMemory": ({"num_slots": 7, "shrink_threshold": 0.25}, [MAPS]),
    "BilinearUpsampling2D": ({"size": 3}, [MAPS]),
    "ChannelAttention": ({"reduction_ratio": 2, "use_bias": False}, [MAPS]),
    "ChannelTransformer": (
        {
            "token_dim": 6,
            "num_heads": 3,
            "num_blocks": 1,
            "mlp_dim": 5,
            "pool_size": 3,
        },
        [MAPS],
    ),
    "CropLike": ({}, [MAPS, (2, 7, 3, 5)]),
    "DepthToSpace": ({}, [MAPS]),
    "GradientReversal": ({"weight": 0.25}, [MAPS]),
    "ImageRegistration": (
        {"max_angle": 10.0, "max_shift": 0.1, "working_size": 16},
        [MAPS],
    ),
    "MaskedConv2D": (
        {
            "filters": 8,
            "kernel_size": 2,
            "dilation_rate": 0,
            "mask_size": 3,
            "activation": "relu",
            "per_corner_activation": True,
            "kernel_regularizer": "l2",
            "kernel_constraint": "max_norm",
        },
        [MAPS],
    ),
    "MaskedConv3D": ({"filters": 3, "bias_initializer": "ones"}, [(2, *MAPS)]),
    "PrototypeMemory": ({"num_items": 5, "margin": 0.5}, [MAPS]),
    "RigidResampling": (
        {"inverse": True, "fill_value": 0.5},
        [(2, 8, 6), (2, 2, 3)],
    ),
    "SSMCTBLayer": (
        {
            "token_dim": 6,
            "num_blocks": 1,
            "delta": 0.3,
            "loss_weight": 0.2,
            "stop_gradient": True,
            "kernel_regularizer": "l2",
        },
        [(2, *MAPS)],
    ),
    "SSPCABLayer": (
        {
            "reduction_ratio": 4,
            "loss": keras.losses.LogCosh(),
            "loss_weight": 0.01,
            "attention": "channel_spatial",
            "activation": "elu",
            "stop_gradient": True,
            "kernel_regularizer": "l2",
        },
        [MAPS],
    ),
    "SpaceToDepth": ({}, [MAPS]),
    "SpatialAttention": ({"kernel_size": 3}, [MAPS]),
    "WeightNormConv2D": ({"filters": 5, "strides": 2}, [MAPS]),
    "AnomalyProbability": ({}, [(2, 8, 6, 2)]),
    "CalibratedScores": (
        {"calibration": scoring.Calibration(threshold=1.5, quantile=0.9)},
        [(2,), (2, 8, 6)],
    ),
    "EmbeddingScore": ({"normalize": True}, [(2, 5)]),
    "GaussianDensity": ({}, [(2, 5)]),
    "GradCAM": ({}, [MAPS, (2, 4)]),
    "KernelDensity": ({"bandwidth": 2.0, "capacity": 9, "seed": 1}, [(2, 5)]),
    "MapPooling": ({"pooling": "top", "share": 0.1}, [(2, 8, 6)]),
    "MapSmoothing": ({"size": 3, "padding": "zeros"}, [(2, 8, 6)]),
    "MapUpsampling": ({"sigma": 2.0}, [(2, 4, 3), MAPS]),
    "MemoryBank": ({"capacity": 9, "num_neighbors": 3}, [MAPS]),
    "PaddingMask": ({}, [MAPS, (2, 8, 6)]),
    "PatchEmbedding": ({"patch_size": 4, "stride": 2}, [MAPS]),
    "PeakSignalToNoise": ({}, [(2,)]),
    "PositionGaussian": ({"shrinkage": 0.2, "rank": 2}, [MAPS]),
    "ReceptiveFieldUpsampling": (
        {"patch_size": 4, "stride": 2},
        [(2, 3, 2), MAPS],
    ),
    "RegionMask": ({"regions": REGIONS}, [MAPS]),
    "RegionScores": (
        {
            "regions": REGIONS,
            "calibrations": 2 * [scoring.Calibration(threshold=1.5)],
        },
        [(2, 8, 6)],
    ),
    "RegularityScore": ({"psnr_weight": 0.6}, [(2,), (2,)]),
    "SquaredError": ({}, [MAPS, MAPS]),
    "StandardizedSum": ({"weights": [1.0, 0.5]}, [(2,), (2,)]),
    "ZScoreSum": ({"weights": [1.0, 0.5]}, [(2, 8, 6), (2, 8, 6)]),
}
# Layers that take their inputs as a list.
LISTS = ("StandardizedSum", "ZScoreSum")
CHANNELS_FIRST = (
    "BilinearUpsampling2D",
    "ChannelAttention",
    "ChannelTransformer",
    "DepthToSpace",
    "MaskedConv2D",
    "SSMCTBLayer",
    "SSPCABLayer",
    "SpaceToDepth",
    "SpatialAttention",
    "WeightNormConv2D",
)

every_layer = pytest.mark.parametrize("name", LAYERS)


def make(name, **options):
    arguments = dict(LAYERS[name][0])
    if name == "PatchEmbedding":
        image = keras.Input((None, None, 4))
        arguments["network"] = keras.Model(
            image, keras.layers.Conv2D(3, 3)(image)
        )
    if name == "EmbeddingScore":
        arguments["density"] = scoring.KernelDensity(2.0, 9)
    module = layers if hasattr(layers, name) else scoring
    return getattr(module, name)(**arguments, **options)


def inputs_of(name, dtype="float32"):
    rng = np.random.default_rng(0)
    return [rng.random(shape).astype(dtype) for shape in LAYERS[name][1]]


def call(layer, inputs):
    is_list = type(layer).__name__ in LISTS
    outputs = layer(inputs) if is_list else layer(*inputs)
    return keras.tree.flatten(outputs)


def test_every_layer_is_listed():
    classes = {
        name
        for module in (layers, scoring)
        for name in module.__all__
        if isinstance(getattr(module, name), type)
        and issubclass(getattr(module, name), keras.layers.Layer)
    }
    assert classes == set(LAYERS)


@every_layer
def test_config_makes_the_same_layer(name):
    layer = make(name)
    saved = keras.saving.serialize_keras_object(layer)
    copy = keras.saving.deserialize_keras_object(saved)
    assert type(copy) is type(layer)
    expected, config = layer.get_config(), copy.get_config()
    # Objects within are numbered.
    for numbered in ("density", "loss", "network"):
        for part in (expected, config):
            if isinstance(part.get(numbered), dict):
                part[numbered] = part[numbered]["config"]
    assert config == expected
    # Built alike, and with the same weights, they compute the same.
    inputs = inputs_of(name)
    call(layer, inputs)
    call(copy, inputs)
    copy.set_weights(layer.get_weights())
    for first, second in zip(
        call(layer, inputs), call(copy, inputs), strict=True
    ):
        np.testing.assert_array_equal(numpy(first), numpy(second))


@every_layer
def test_symbolic_outputs_have_the_shapes_and_dtypes_of_real_ones(name):
    layer, inputs = make(name), inputs_of(name)
    symbolic = call(layer, [keras.Input(x.shape[1:]) for x in inputs])
    for expected, real in zip(symbolic, call(layer, inputs), strict=True):
        assert expected.shape == (None, *real.shape[1:])
        assert expected.dtype == keras.backend.standardize_dtype(real.dtype)


@every_layer
def test_float64_is_kept(name):
    if keras.config.backend() == "jax":
        pytest.skip("JAX has no float64 unless it is enabled")
    layer, inputs = make(name, dtype="float64"), inputs_of(name, "float64")
    outputs = call(layer, inputs)
    single = make(name, dtype="float32")
    call(single, inputs_of(name))
    single.set_weights(layer.get_weights())
    if name in ("EmbeddingScore", "PatchEmbedding"):
        # What these hold has a dtype of its own.
        return
    for double, value in zip(
        outputs, call(single, inputs_of(name)), strict=True
    ):
        if double.dtype != bool:
            assert keras.backend.standardize_dtype(double.dtype) == "float64"
        np.testing.assert_allclose(
            numpy(double), numpy(value), rtol=1e-3, atol=1e-4
        )


@every_layer
def test_mixed_precision(name):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        layer = make(name)
        outputs = call(layer, inputs_of(name, "float16"))
    finally:
        keras.config.set_dtype_policy(before)
    for x in outputs:
        assert np.isfinite(numpy(x)).all()
    # What scores, remembers or finds pixels computes in float32.
    ends = ("Memory", "Registration", "RigidResampling")
    is_exact = hasattr(scoring, name) or name.endswith(ends)
    assert layer.compute_dtype == ("float32" if is_exact else "float16")
    assert layer.variable_dtype == "float32"


@pytest.mark.parametrize("name", CHANNELS_FIRST)
def test_channels_first(name):
    (x,) = inputs_of(name)
    last, first = (
        make(name, data_format=data_format)
        for data_format in ("channels_last", "channels_first")
    )
    expected = numpy(last(x))
    moved = np.moveaxis(x, -1, 1)
    first(moved)
    first.set_weights(last.get_weights())
    result = numpy(first(moved))
    np.testing.assert_allclose(
        np.moveaxis(result, 1, -1), expected, rtol=1e-4, atol=1e-5
    )
    assert first.compute_output_shape(moved.shape) == result.shape
    for ours, theirs in zip(first.losses, last.losses, strict=True):
        np.testing.assert_allclose(numpy(ours), numpy(theirs), rtol=1e-5)


@pytest.mark.parametrize(
    "name",
    ["EmbeddingScore", "GaussianDensity", "MemoryBank", "PositionGaussian"],
)
def test_what_was_fitted_is_saved_and_not_trained(name, tmp_path):
    shape = LAYERS[name][1][0][1:]
    inputs, layer = keras.Input(shape), make(name)
    model = keras.Model(inputs, layer(inputs))
    normal = np.random.default_rng(1).random((12, *shape)).astype("float32")
    layer.fit([normal] if len(shape) == 3 else normal)
    assert model.trainable_weights == []
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = inputs_of(name)[0]
    for result, expected in zip(
        keras.tree.flatten(loaded(x)), keras.tree.flatten(model(x)), strict=True
    ):
        np.testing.assert_allclose(numpy(result), numpy(expected), rtol=1e-5)


@pytest.mark.parametrize(
    ("cls", "arguments", "message"),
    [
        (layers.AttentionMemory, {"num_slots": 1}, "num_slots=1"),
        (layers.AttentionMemory, {"shrink_threshold": 1.0}, "threshold=1.0"),
        (layers.BilinearUpsampling2D, {"size": 0}, "size=0"),
        (layers.ChannelAttention, {"reduction_ratio": 0}, "`reduction_ratio`"),
        (layers.DepthToSpace, {"block_size": 0}, "block_size"),
        (layers.GradientReversal, {"weight": float("nan")}, "weight"),
        (layers.ImageRegistration, {"max_angle": 181}, "at most 180.*181"),
        (layers.ImageRegistration, {"max_shift": 0.6}, "max_shift=0.6"),
        (layers.ImageRegistration, {"working_size": 8}, "working_size=8"),
        (layers.MaskedConv2D, {"filters": 0}, "`filters`.*at least 1.*=0"),
        (layers.MaskedConv2D, {"filters": 2, "kernel_size": 1.5}, "1.5"),
        (layers.SSPCABLayer, {"dilation_rate": -1}, "at least 0"),
        (layers.SSPCABLayer, {"mask_size": True}, "True"),
        (layers.MaskedConv2D, {"filters": 2, "padding_mode": "same"}, "zeros"),
        (layers.MaskedConv2D, {"filters": 2, "data_format": "nhwc"}, "nhwc"),
        (layers.PrototypeMemory, {"num_items": 1}, "num_items=1"),
        (layers.RigidResampling, {"fill_value": np.nan}, "fill_value=nan"),
        (layers.SSPCABLayer, {"attention": "self"}, "`attention`.*self"),
        (layers.SSPCABLayer, {"dilation": 1}, "Unrecognized keyword"),
        (layers.SSPCABLayer, {"loss": "rmse"}, "`loss`.*rmse"),
        (layers.SSPCABLayer, {"loss_weight": -0.1}, "`loss_weight`.*-0.1"),
        (layers.SpatialAttention, {"kernel_size": 4}, "must be odd"),
        (layers.WeightNormConv2D, {"filters": 4, "strides": -1}, "strides"),
        (scoring.KernelDensity, {"bandwidth": 0}, "bandwidth=0"),
        (scoring.KernelDensity, {"capacity": 1}, "capacity=1"),
        (scoring.MapPooling, {"pooling": "median"}, "`pooling`"),
        (scoring.MapPooling, {"pooling": "top", "share": 0}, "share=0"),
        (scoring.MapSmoothing, {"size": 4}, "odd"),
        (scoring.MapSmoothing, {"size": 5, "padding": "mirror"}, "mirror"),
        (scoring.MapUpsampling, {"sigma": -1}, "sigma=-1"),
        (scoring.MemoryBank, {"capacity": 0}, "capacity=0"),
        (scoring.MemoryBank, {"capacity": 4, "num_neighbors": 5}, "greater"),
        (scoring.MemoryBank, {"max_candidates": 0}, "max_candidates=0"),
        (scoring.MemoryBank, {"seed": -1}, "seed=-1"),
        (scoring.PositionGaussian, {"rank": 0}, "rank=0"),
        (scoring.PositionGaussian, {"regularization": np.inf}, "inf"),
        (scoring.PositionGaussian, {"shrinkage": 1.0}, "shrinkage=1.0"),
        (scoring.RegularityScore, {"psnr_weight": 1.5}, "psnr_weight=1.5"),
        (scoring.ZScoreSum, {"weights": (0.0, 0.0)}, "weights.* above 0"),
        (scoring.ZScoreSum, {"weights": (np.nan, 1.0)}, "weights=nan"),
    ],
)
def test_bad_arguments(cls, arguments, message):
    with pytest.raises(ValueError, match=message):
        cls(**arguments)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("AttentionMemory", (None, None, 4, 2), "must be known"),
        ("ChannelAttention", (None, 8, 8, None), "must be known"),
        ("DepthToSpace", (1, 2, 2, 6), "multiple of 4 with block_size=2"),
        ("DepthToSpace", (1, 2, 2, None), "must be known"),
        ("GaussianDensity", (None, None), "must be known"),
        ("ImageRegistration", (None, None, 8, 3), "must be known"),
        ("MaskedConv2D", (None, 8, 8, None), "must be known"),
        ("MemoryBank", (None, 4, 5, None), "must be known"),
        ("PositionGaussian", (None, None, 4, 5), "must be known"),
        ("PrototypeMemory", (None, 4, 4, None), "must be known"),
        ("SSMCTBLayer", (8, 8, 8, None), "must be known"),
        ("SSPCABLayer", (8, 8, 8, None), "must be known"),
        ("SpaceToDepth", (1, 3, 2, 6), "height and width must be a multiple"),
    ],
)
def test_bad_shapes(name, shape, message):
    with pytest.raises(ValueError, match=message):
        make(name).build(shape)
