import math

import keras
import numpy as np
from keras import ops

from keras_sspcab.applications.hf2vad_memory import memory_autoencoder
from keras_sspcab.layers import AttentionMemory, SSPCABLayer
from tests.applications.helpers import numpy

TINY = {"input_shape": (16, 8, 2), "root_width": 2, "num_slots": 8}
BATCH = (3, 16, 8, 2)


def crops(shape=BATCH, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def count(weights):
    return sum(math.prod(weight.shape) for weight in weights)


def randomize(model, seed=0):
    """Gives every weight, the moving statistics too, a value of its own."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        value = rng.normal(0, 0.3, weight.shape)
        if weight.name in ("gamma", "moving_variance"):
            value = np.exp(value)
        weight.assign(value)


class Oracle:
    """The table of the specification in NumPy, aligned as PyTorch aligns."""

    def __init__(self, model):
        self.model = model

    def weights(self, name):
        layer = self.model.get_layer(name)
        return [numpy(weight).astype("float64") for weight in layer.weights]

    def conv(self, x, name, stride=1):
        kernel, bias = self.weights(name)
        pad = kernel.shape[0] // 2
        return correlate(x, kernel, pad, pad)[:, ::stride, ::stride] + bias

    def up(self, x, name):
        kernel, bias = self.weights(name)
        # Padding 1 and output padding 1: zeros between, before and behind.
        spread = np.zeros((len(x), 2 * x.shape[1], 2 * x.shape[2], x.shape[3]))
        spread[:, ::2, ::2] = x
        # Transposing turns the kernel over.
        kernel = kernel[::-1, ::-1].swapaxes(2, 3)
        return correlate(spread, kernel, 1, 1) + bias

    def norm_relu(self, x, name):
        gamma, beta, mean, variance = self.weights(f"{name}_norm")
        x = (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta
        return np.maximum(x, 0)

    def double(self, x, name):
        for conv in (f"{name}_conv1", f"{name}_conv2"):
            x = self.norm_relu(self.conv(x, conv), conv)
        return x

    def memory(self, x, name):
        (slots,) = self.weights(name)
        logits = x.reshape(len(x), -1) @ slots.T
        a = np.exp(logits - logits.max(1, keepdims=True))
        a /= a.sum(1, keepdims=True)
        a = np.where(a > 1 / len(slots), a, 0)
        a /= np.maximum(a.sum(1, keepdims=True), 1e-12)
        self.entropy += -(a * np.log(a + 1e-12)).sum(1)
        return (a @ slots).reshape(x.shape)

    def __call__(self, flow):
        self.entropy = 0
        x0 = self.double(flow, "encoder0")
        x1 = self.double(self.conv(x0, "encoder1_down", 2), "encoder1")
        x2 = self.double(self.conv(x1, "encoder2_down", 2), "encoder2")
        x3 = self.double(self.conv(x2, "encoder3_down", 2), "encoder3")
        y = self.up(self.memory(x3, "memory3"), "decoder3_up")
        y = self.double(np.concatenate([x2, y], -1), "decoder3")
        y = self.up(self.memory(y, "memory2"), "decoder2_up")
        y = self.double(np.concatenate([x1, y], -1), "decoder2")
        y = self.up(self.memory(y, "memory1"), "decoder1_up")
        y = self.double(y, "decoder1")
        return self.conv(y, "reconstruction"), self.entropy


def correlate(x, kernel, before, behind):
    pad = [(0, 0), (before, behind), (before, behind), (0, 0)]
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(x, pad), kernel.shape[:2], (1, 2)
    )
    return np.einsum("bhwcij,ijco->bhwo", windows, kernel)


def test_follows_the_table():
    model, x = memory_autoencoder(**TINY), crops()
    randomize(model)
    reconstruction, entropy = Oracle(model)(x.astype("float64"))
    result = model(x, training=False)
    assert np.median(entropy) > 0.1
    assert reconstruction.std() > 0.1
    np.testing.assert_allclose(
        numpy(result["reconstruction"]), reconstruction, atol=1e-3
    )
    np.testing.assert_allclose(numpy(result["entropy"]), entropy, atol=1e-3)


def test_counts_of_the_published_network():
    model = memory_autoencoder(num_slots=2)
    memories = [
        layer for layer in model.layers if isinstance(layer, AttentionMemory)
    ]
    assert [count(memory.weights) // 2 for memory in memories] == [
        4096,
        8192,
        16384,
    ]
    rest = count(model.trainable_weights) - 2 * (4096 + 8192 + 16384)
    assert rest == 2_908_578
    assert count(model.get_layer("decoder1_conv2").weights) == 9_248
    assert model.input_shape == (None, 32, 32, 2)
    shapes = {name: part.shape for name, part in model.output.items()}
    assert shapes == {"reconstruction": (None, 32, 32, 2), "entropy": (None,)}


def test_the_block_replaces_one_convolution():
    plain = memory_autoencoder(num_slots=2)
    model = memory_autoencoder(
        num_slots=2, sspcab_options={"loss_weight": 0.01}
    )
    (block,) = (
        layer for layer in model.layers if isinstance(layer, SSPCABLayer)
    )
    assert block.loss_weight == 0.01
    assert count(block.weights) == 4_516
    assert (
        count(plain.trainable_weights) - count(model.trainable_weights)
        == 9_248 - 4_516
    )
    names, replaced = (
        [layer.name for layer in m.layers] for m in (plain, model)
    )
    names[names.index("decoder1_conv2")] = block.name
    assert names == replaced
    # Behind a ReLU, as the block wants.
    x = crops((1, 32, 32, 2))
    seen = keras.Model(model.input, block.input)(x)
    assert float(ops.min(seen)) == 0
    model(x, training=True)
    assert len(model.losses) == 1
