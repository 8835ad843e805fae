"""Compared with the authors' block, rebuilt here from its published facts."""

import numpy as np
import pytest
from keras import ops

from keras_sspcab import SSPCABLayer, from_torch_state_dict
from tests.layers import oracle


def state_dict(channels, kernel_size, ratio=8, prefix=""):
    rng = np.random.default_rng(0)
    shapes = {
        "se.fc1.weight": (channels // ratio, channels),
        "se.fc1.bias": (channels // ratio,),
        "se.fc2.weight": (channels, channels // ratio),
        "se.fc2.bias": (channels,),
    }
    for i in range(1, 5):
        shapes[f"conv{i}.weight"] = (channels, channels) + (kernel_size,) * 2
        shapes[f"conv{i}.bias"] = (channels,)
    return {
        prefix + name: 0.3 * rng.normal(size=shape).astype("float32")
        for name, shape in shapes.items()
    }


def authors_block(x, state, kernel_size, dilation):
    """Channels first, four convolutions on crops of the padded input."""
    pad = kernel_size + dilation
    offset = kernel_size + 2 * dilation + 1
    padded = np.pad(x, [(0, 0), (0, 0), (pad, pad), (pad, pad)])
    crops = {
        "conv1": padded[:, :, :-offset, :-offset],
        "conv2": padded[:, :, offset:, :-offset],
        "conv3": padded[:, :, :-offset, offset:],
        "conv4": padded[:, :, offset:, offset:],
    }
    height, width = x.shape[2:]
    z = 0
    for name, crop in crops.items():
        weight = state[name + ".weight"]
        part = state[name + ".bias"][None, :, None, None]
        for i in range(kernel_size):
            for j in range(kernel_size):
                view = crop[:, :, i : i + height, j : j + width]
                part = part + np.einsum(
                    "bchw,oc->bohw", view, weight[..., i, j]
                )
        z = z + part
    z = oracle.relu(z)
    hidden = oracle.relu(
        z.mean((2, 3)) @ state["se.fc1.weight"].T + state["se.fc1.bias"]
    )
    gate = oracle.sigmoid(
        hidden @ state["se.fc2.weight"].T + state["se.fc2.bias"]
    )
    return z * gate[:, :, None, None]


@pytest.mark.parametrize(("kernel_size", "dilation"), [(1, 1), (2, 0), (2, 2)])
def test_outputs_agree(kernel_size, dilation):
    state = state_dict(16, kernel_size, prefix="net.block.")
    plain = {name[len("net.block.") :]: v for name, v in state.items()}
    layer = SSPCABLayer(kernel_size=kernel_size, dilation_rate=dilation)
    assert from_torch_state_dict(layer, state, prefix="net.block.") is layer
    x = np.random.default_rng(1).random((2, 16, 9, 11)).astype("float32")
    expected = authors_block(x, plain, kernel_size, dilation)
    result = ops.convert_to_numpy(layer(x.transpose(0, 2, 3, 1)))
    np.testing.assert_allclose(
        result.transpose(0, 3, 1, 2), expected, atol=1e-5
    )


def test_built_layer_and_torch_tensors():
    class Tensor:  # What a torch.Tensor offers.
        def __init__(self, array):
            self.array = array

        def detach(self):
            return self

        def cpu(self):
            return self.array

    state = state_dict(8, 1)
    layer = SSPCABLayer()
    layer.build((None, 4, 4, 8))
    from_torch_state_dict(layer, {k: Tensor(v) for k, v in state.items()})
    np.testing.assert_array_equal(
        ops.convert_to_numpy(layer.masked_conv.kernel)[0, 1],
        state["conv3.weight"][..., 0, 0].T,
    )


def test_tensors_in_bfloat16():
    class Tensor:  # NumPy cannot read it.
        dtype = "torch.bfloat16"

        def __init__(self, array):
            self.array = array
            self.ndim, self.shape = array.ndim, array.shape

        def detach(self):
            return self

        cpu = detach

        def float(self):
            return self.array

        def __array__(self, *arguments, **named):
            raise TypeError("Got unsupported ScalarType BFloat16")

    state = state_dict(8, 1)
    tensors = {name: Tensor(array) for name, array in state.items()}
    layer = from_torch_state_dict(SSPCABLayer(), tensors)
    expected = from_torch_state_dict(SSPCABLayer(), state)
    for one, other in zip(layer.weights, expected.weights, strict=True):
        np.testing.assert_array_equal(
            ops.convert_to_numpy(one), ops.convert_to_numpy(other)
        )


def test_without_attention_the_rest_is_loaded():
    layer = SSPCABLayer(attention=None)
    from_torch_state_dict(layer, state_dict(8, 1))
    assert len(layer.get_weights()) == 2


def test_missing_name_leaves_the_layer_as_it_was():
    state = state_dict(8, 1)
    del state["se.fc2.bias"]
    layer = SSPCABLayer()
    layer.build((None, 4, 4, 8))
    before = layer.get_weights()
    with pytest.raises(ValueError, match="no entry 'se.fc2.bias'"):
        from_torch_state_dict(layer, state)
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel_size": 2}, "conv1.weight does not fit.*2, 2"),
        ({"reduction_ratio": 4}, "se.fc1.weight does not fit"),
        ({"use_bias": False}, "biases of conv are not zero"),
    ],
)
def test_layer_that_does_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        from_torch_state_dict(SSPCABLayer(**arguments), state_dict(16, 1))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (state_dict(8, 1, prefix="x."), "Is `prefix` right"),
        ({"conv1.weight": np.zeros((8, 8, 1))}, "must have 4 dimensions"),
    ],
)
def test_state_that_does_not_fit(state, message):
    with pytest.raises(ValueError, match=message):
        from_torch_state_dict(SSPCABLayer(), state)
