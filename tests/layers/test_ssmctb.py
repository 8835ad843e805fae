"""The transformer block: its equations, the authors' code, and volumes."""

import itertools
import json
import re

import keras
import numpy as np
import pytest
from keras import ops
from keras.ops import convert_to_numpy as numpy

from keras_sspcab import (
    ChannelTransformer,
    MaskedConv2D,
    MaskedConv3D,
    SSMCTBLayer,
    SSPCABLayer,
    from_torch_state_dict,
)
from keras_sspcab.layers import block_layer
from keras_sspcab.torch_weights import find_block
from tests.conftest import SHARED_DATA
from tests.layers import oracle

VECTORS = SHARED_DATA.parent / "specs/vectors/ssmctb_vectors.npz"
SMALL = {"token_dim": 6, "num_heads": 2, "num_blocks": 1, "mlp_dim": 5}


def features(*shape):
    return np.random.default_rng(0).random(shape, "float32")


def model_around(block, shape=(8, 8, 4)):
    return keras.Sequential([keras.Input(shape), block])


def softmax(x):
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def normalized(x):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-6)


def paper_gate(layer, tokens):
    """Section 3 of the paper, head by head."""
    for block in layer.blocks:
        heads, size = layer.num_heads, layer.token_dim
        rows = normalized(tokens)
        kernels = np.split(numpy(block.attention.qkv.kernel), 3, axis=1)
        for head in range(heads):
            columns = slice(head * size, (head + 1) * size)
            q, k, v = (rows @ kernel[:, columns] for kernel in kernels)
            weights = softmax(q @ k.transpose(0, 2, 1) / np.sqrt(size))
            tokens = tokens + weights @ v
        (w1, b1), (w2, b2) = (
            [numpy(w) for w in dense.weights]
            for dense in (block.expand, block.reduce)
        )
        hidden = oracle.relu(normalized(tokens) @ w1 + b1)
        tokens = tokens + hidden @ w2 + b2
    return oracle.sigmoid(tokens.mean(-1))


def paper_tokens(layer, values):
    kernel, bias = (numpy(w) for w in layer.projection.weights)
    return values @ kernel + bias + numpy(layer.position)


@pytest.mark.parametrize("shape", [(2, 6, 5, 4), (2, 3, 5, 4, 4)])
def test_gate_is_that_of_the_paper(shape):
    layer = ChannelTransformer(**{**SMALL, "num_blocks": 2})
    x = features(*shape)
    result = numpy(layer(x))
    means = x.mean(tuple(range(1, x.ndim - 1)))[..., None]
    gate = paper_gate(layer, paper_tokens(layer, means))
    gate = gate.reshape(2, *(1,) * (x.ndim - 2), 4)
    np.testing.assert_allclose(result, x * gate, rtol=1e-4)
    # Each sample and each channel has a gate of its own.
    assert len(np.unique(gate.round(6))) == 8


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("size", [(6, 8), (7, 5), (2, 3, 4)])
def test_pooling(size, data_format):
    # As PyTorch's adaptive pooling: from the floor to the ceiling.
    layer = ChannelTransformer(pool_size=2, data_format=data_format, **SMALL)
    x = features(2, *size, 4)
    first = np.moveaxis(x, -1, 1)
    moved = first if data_format == "channels_first" else x
    layer.build(moved.shape)
    expected = []
    for pool in itertools.product(range(2), repeat=len(size)):
        window = tuple(
            slice(i * side // 2, -(-(i + 1) * side // 2))
            for i, side in zip(pool, size, strict=True)
        )
        part = first[(slice(None), slice(None), *window)]
        expected.append(part.mean(tuple(range(2, part.ndim))))
    np.testing.assert_allclose(
        numpy(layer._pool(ops.convert_to_tensor(moved))),
        np.stack(expected, -1),
        rtol=1e-5,
    )


def authors_state(vectors, name):
    """The weights that the vectors belong to, and their input."""
    seed = int(vectors["seed"]) + int(name[-1])
    state = {}
    tensors = json.loads(str(vectors[f"{name}/names"]))
    for index, (tensor, shape) in enumerate(tensors):
        rng = np.random.default_rng([seed, index])
        value = rng.standard_normal(shape)
        if tensor.endswith("bias"):
            value *= 0.1
        elif "pos" not in tensor:
            value *= np.sqrt(2 / np.prod(shape[1:]))
        state[f"net.{tensor}"] = value.astype("float32")
    rng = np.random.default_rng([seed, 999])
    x = np.maximum(rng.standard_normal(vectors[f"{name}/shape"]), 0)
    return state, x.astype("float32")


@pytest.mark.parametrize("group", ["ssmctb2d", "ssmctb3d"])
@pytest.mark.parametrize("number", range(3))
def test_authors_weights_give_their_outputs_and_loss(group, number):
    if not VECTORS.exists():
        pytest.skip("needs the vectors beside the project")
    vectors, name = np.load(VECTORS), f"{group}/{number}"
    state, x = authors_state(vectors, name)
    _, kernel_size, dilation = vectors[f"{name}/cfg"]
    layer = SSMCTBLayer(
        int(kernel_size), int(dilation), attention="authors", loss_weight=1.0
    )
    from_torch_state_dict(layer, state, "net.")
    np.testing.assert_allclose(
        numpy(layer(x)), vectors[f"{name}/output"], atol=1e-5
    )
    (loss,) = layer.losses
    np.testing.assert_allclose(float(loss), vectors[f"{name}/mse"], atol=1e-5)
    # The arguments can also be found from the weights.
    found = block_layer(find_block(state, "net."), dilation_rate=int(dilation))
    assert found.get_config() | {"name": ""} == layer.get_config() | {
        "name": "",
        "loss_weight": 0.1,
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention": "transformer"}, 'Create the layer with attention="auth'),
        (
            {"attention": "authors", "num_heads": 4},
            "to_qkv.weight does not fit",
        ),
        (
            {"attention": "authors", "pool_size": 2},
            "projection.weight does not",
        ),
        (
            {"attention": "authors", "kernel_size": 2},
            "conv1.weight does not fi",
        ),
    ],
)
def test_weights_that_do_not_fit(options, message):
    channels, state = 4, {}
    for index in range(1, 5):
        state[f"conv{index}.weight"] = np.zeros((channels, channels, 1, 1))
        state[f"conv{index}.bias"] = np.zeros(channels)
    state["transformer.pos_embedding"] = np.zeros((1, channels, 64))
    state["transformer.projection.weight"] = np.zeros((64, 1))
    state["transformer.projection.bias"] = np.zeros(64)
    state["transformer.mha.to_qkv.weight"] = np.zeros((960, 64))
    state["transformer.mha.to_out.0.weight"] = np.zeros((64, 320))
    state["transformer.mha.to_out.0.bias"] = np.zeros(64)
    with pytest.raises(ValueError, match=re.escape(message)):
        from_torch_state_dict(SSMCTBLayer(**options), state)
    # And a block of volumes has no place for weights of maps.
    volumes = SSMCTBLayer(attention="authors")
    volumes.build((None, 4, 4, 4, channels))
    with pytest.raises(ValueError, match="must have 5 dimensions"):
        from_torch_state_dict(volumes, state)


@pytest.mark.parametrize(
    ("channels", "maps", "volumes"),
    [(32, 88384, 92608), (64, 102848, 119488), (512, 1165504, 2216128)],
)
def test_number_of_parameters(channels, maps, volumes):
    for rank, expected in ((2, maps), (3, volumes)):
        layer = SSMCTBLayer(attention="authors")
        layer.build((None, *(4,) * rank, channels))
        assert layer.count_params() == expected
        assert layer.channel_attention.count_params() == 82112 + 64 * channels


def test_parameters_of_the_paper():
    layer = SSMCTBLayer()
    layer.build((None, 4, 4, 32))
    attention, mlp = 3 * 64 * 4 * 64, 2 * 64 * 128 + 128 + 64
    norms, projection, position = 2 * 2 * 64, 2 * 64, 32 * 64
    assert layer.channel_attention.count_params() == (
        2 * (attention + mlp + norms) + projection + position
    )


@pytest.mark.parametrize(
    ("shape", "conv"),
    [((2, 7, 6, 4), MaskedConv2D), ((2, 5, 6, 7, 4), MaskedConv3D)],
)
def test_convolution_is_that_of_the_rank(shape, conv):
    layer, x = (
        SSMCTBLayer(attention=None, bias_initializer="ones"),
        features(*shape),
    )
    result = numpy(layer(x))
    assert type(layer.masked_conv) is conv
    kernel, bias = (numpy(w) for w in layer.masked_conv.weights)
    expected = oracle.relu(oracle.masked_conv(x, kernel, bias, 1, 1, 1))
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)
    assert layer.compute_output_shape(shape) == shape


def test_a_built_layer_keeps_its_rank():
    layer = SSMCTBLayer(attention=None)
    layer.build((None, 4, 4, 4))
    with pytest.raises(ValueError, match="expected ndim=4, found ndim=5"):
        layer(features(1, 4, 4, 4, 4))
    with pytest.raises(ValueError, match="expected min_ndim=4, found ndim=3"):
        SSMCTBLayer()(features(4, 4, 4))


@pytest.mark.parametrize("rank", [2, 3])
def test_open_sizes(rank):
    layer = SSMCTBLayer(pool_size=2, **SMALL)
    model = model_around(layer, (*(None,) * rank, 4))
    for size in ((5, 7, 4), (8, 6, 3)):
        x = features(3, *size[:rank], 4)
        np.testing.assert_allclose(
            model.predict(x, verbose=0), numpy(layer(x)), rtol=1e-5, atol=1e-6
        )


def test_channels_first_everywhere():
    # The tokens within have no such format.
    x = features(2, 4, 6, 6)
    given = SSMCTBLayer(data_format="channels_first", **SMALL)
    given.build(x.shape)
    keras.config.set_image_data_format("channels_first")
    try:
        layer = SSMCTBLayer(**SMALL)
        layer.build(x.shape)
        layer.set_weights(given.get_weights())
        np.testing.assert_array_equal(numpy(layer(x)), numpy(given(x)))
    finally:
        keras.config.set_image_data_format("channels_last")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, lambda e: np.where(e < 1, e**2 / 2, e - 0.5)),
        ({"delta": 0.5}, lambda e: np.where(e < 0.5, e**2 / 2, e / 2 - 0.125)),
        ({"delta": 2}, lambda e: np.where(e < 2, e**2 / 2, 2 * e - 2)),
        ({"attention": "authors"}, lambda e: e**2),
        ({"loss": "mae", "delta": 0.5}, lambda e: e),
        ({"loss": keras.losses.MeanSquaredError()}, lambda e: e**2),
    ],
)
def test_loss(options, expected):
    layer = SSMCTBLayer(loss_weight=0.2, **{**SMALL, **options})
    x = 4 * features(2, 6, 6, 4)
    error = np.abs(numpy(layer(x)) - x)
    assert (error < 0.5).any()
    assert (error > 2).any()
    (loss,) = layer.losses
    np.testing.assert_allclose(
        float(loss), 0.2 * expected(error).mean(), rtol=1e-5
    )


@pytest.mark.parametrize("options", [{"loss": None}, {"loss_weight": 0}])
def test_no_loss(options):
    layer = SSMCTBLayer(**SMALL, **options)
    layer(features(1, 4, 4, 4))
    assert layer.losses == []
    assert layer.metrics == []


def test_one_metric_sums_the_blocks_of_both_kinds():
    inputs = keras.Input((8, 8, 4))
    outputs = SSMCTBLayer(name="new", **SMALL)(SSPCABLayer(name="old")(inputs))
    model = keras.Model(inputs, outputs)
    model.compile(loss="mse")
    x = features(4, 8, 8, 4)
    results = model.evaluate(x, 0 * x, verbose=0, return_dict=True)
    assert set(results) == {"loss", "sspcab_loss"}
    model(x)
    terms = [float(loss) for loss in model.losses]
    np.testing.assert_allclose(results["sspcab_loss"], sum(terms), rtol=1e-5)


@pytest.mark.parametrize("attention", ["transformer", "authors"])
@pytest.mark.parametrize("shape", [(8, 8, 4), (6, 8, 4, 4)])
def test_training_moves_every_weight_and_the_file_keeps_them(
    shape, attention, tmp_path
):
    model = model_around(
        SSMCTBLayer(attention=attention, loss_weight=5.0, **SMALL), shape
    )
    model.compile(keras.optimizers.Adam(0.01), "mse")
    before = model.get_weights()
    x = features(8, *shape)
    history = model.fit(x, x, epochs=4, batch_size=4, verbose=0).history
    for name in ("loss", "sspcab_loss"):
        assert history[name][-1] < history[name][0]
    for weight, old in zip(model.weights, before, strict=True):
        assert not np.array_equal(numpy(weight), old), weight.path
    model.save(tmp_path / "a.keras")
    loaded = keras.models.load_model(tmp_path / "a.keras")
    np.testing.assert_array_equal(
        loaded.predict(x, verbose=0), model.predict(x, verbose=0)
    )
    model.save_weights(tmp_path / "a.weights.h5")
    other = model_around(SSMCTBLayer(attention=attention, **SMALL), shape)
    other.load_weights(tmp_path / "a.weights.h5")
    np.testing.assert_array_equal(
        other.predict(x, verbose=0), model.predict(x, verbose=0)
    )


def test_half_precision_is_near_to_single():
    # Sums that float16 cannot hold, in the means and in the loss.
    x = 300 * features(2, 32, 32, 4)
    single, half = (
        SSMCTBLayer(**SMALL),
        SSMCTBLayer(**SMALL, dtype="mixed_float16"),
    )
    for layer in (single, half):
        layer.build(x.shape)
    half.set_weights(single.get_weights())
    expected, result = numpy(single(x)), numpy(half(x))
    assert result.dtype == "float16"
    np.testing.assert_allclose(result, expected, rtol=0.05, atol=1)
    np.testing.assert_allclose(
        float(half.losses[0]), float(single.losses[0]), rtol=0.01
    )


def test_computed_again_the_loss_is_added_once():
    with keras.RematScope(mode="full"):
        block = SSMCTBLayer(**SMALL)
    model = model_around(block)
    model.compile("sgd", "mse")
    x = features(4, 8, 8, 4)
    plain = model_around(SSMCTBLayer(**SMALL))
    plain.set_weights(model.get_weights())
    plain.compile("sgd", "mse")
    for trained in (model, plain):
        trained.fit(x, x, verbose=0)
    for ours, theirs in zip(
        model.get_weights(), plain.get_weights(), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_authors_initializer():
    keras.utils.set_random_seed(3)
    layer = SSMCTBLayer(initializer="authors", attention="authors")
    layer.build((None, 8, 8, 8, 64))
    gate = layer.channel_attention
    (attention,) = gate.blocks
    for weight, fan_in in (
        (layer.masked_conv.kernel, 64),
        (gate.projection.kernel, 1),
        (attention.qkv.kernel, 64),
        (attention.output_projection.kernel, 320),
        (attention.output_projection.bias, 320),
    ):
        largest = np.abs(numpy(weight)).max()
        assert 0.8 / fan_in**0.5 < largest <= 1 / fan_in**0.5, weight.path
    assert abs(numpy(gate.position).std() - 1) < 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delta": 0}, "`delta`.*above 0.*delta=0"),
        ({"attention": "channel"}, "`attention`.*transformer.*channel"),
        ({"token_dim": 0}, "`token_dim`.*at least 1"),
        ({"num_heads": 1.5}, "`num_heads`.*1.5"),
        ({"num_blocks": 0}, "`num_blocks`"),
        ({"mlp_dim": -1}, "`mlp_dim`"),
        ({"pool_size": 0}, "`pool_size`"),
        ({"loss": "rmse"}, "`loss`.*rmse"),
        ({"reduction_ratio": 8}, "Unrecognized keyword.*reduction_ratio"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        SSMCTBLayer(**options)
