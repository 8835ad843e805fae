"""Published checkpoints, on outputs of the published networks themselves."""

import json
import math

import keras
import numpy as np
import pytest

from keras_sspcab import SSPCABLayer
from keras_sspcab.applications import (
    DRAEM,
    HF2VAD,
    MNAD,
    CutPaste,
    FutureFrame,
)
from keras_sspcab.export import export_model
from keras_sspcab.export.runners import load_runner
from tests import torch_save
from tests.conftest import SHARED_DATA

VECTORS = SHARED_DATA.parent / "specs/vectors/published_vectors.npz"
FORMATS = {"savedmodel": "served", "tflite": "m.tflite", "onnx": "m.onnx"}


def _tensor(name, shape, rng):
    """A tensor of a reproducible checkpoint, as the vectors' README says."""
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, "int64")
    if name.endswith("running_var"):
        value = 0.5 + rng.random(shape)
    elif name.endswith("running_mean"):
        value = 0.2 * rng.standard_normal(shape)
    elif name.endswith(("bias", "beta")):
        value = 0.1 * rng.standard_normal(shape)
    elif name.endswith("weight_g"):
        value = 0.25 * (0.5 + rng.random(shape))
    elif name.endswith("memMatrix"):
        value = rng.standard_normal(shape)
    elif name.endswith("gamma") or len(shape) <= 1:
        value = 0.5 + rng.random(shape)
    else:
        value = rng.standard_normal(shape)
        value *= math.sqrt(2 / math.prod(shape[1:]))
    return value.astype("float32")


class Published:
    """The vectors, and the checkpoints that they were computed with."""

    def __init__(self, folder):
        if not VECTORS.is_file():
            pytest.skip("needs the vectors of the published networks")
        self.vectors = dict(np.load(VECTORS))
        self.seed = int(self.vectors["seed"])
        self.folder = folder

    def file(self, network, offset):
        """Writes a state dict of `torch.save`, unless it is there."""
        path = self.folder / f"{network.replace('/', '-')}.pth"
        if path.exists():
            return path
        seed = self.seed + offset
        arrays = {
            name: _tensor(name, shape, np.random.default_rng([seed, index]))
            for index, (name, shape) in enumerate(
                json.loads(str(self.vectors[f"{network}/names"]))
            )
        }
        torch_save.save(torch_save.tensors(arrays), path)
        return path

    def random(self, offset, shape):
        rng = np.random.default_rng([self.seed + offset, 999])
        return rng.random(shape, dtype="float32")

    def draem(self, **arguments):
        paths = (
            self.file("draem/reconstructive", 0),
            self.file("draem/discriminative", 1),
        )
        model = DRAEM.from_published(*paths, image_size=64, **arguments)
        return model, self.random(0, (2, 64, 64, 3))

    def mnad(self, task="prediction", **arguments):
        items = np.random.default_rng([self.seed, 998]).standard_normal(
            (10, 512)
        )
        items /= np.linalg.norm(items, axis=1, keepdims=True)
        keys = self.folder / "keys.pt"
        torch_save.save(torch_save.Tensor(items.astype("float32")), keys)
        path = self.file(f"mnad/{task}", 2)
        model = MNAD.from_published(path, keys, image_size=32, **arguments)
        return model, self.random(2, (2, *model.input_shape[1:]))

    def hf2vad(self, **arguments):
        model = HF2VAD.from_published(self.file("hf2vad", 3), **arguments)
        rng = np.random.default_rng([self.seed + 3, 997])
        motion = 4 * rng.standard_normal((2, 5, 32, 32, 2))
        return model, {
            "appearance": self.random(3, (2, 5, 32, 32, 3)),
            "motion": motion.astype("float32"),
        }


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return Published(tmp_path_factory.mktemp("published"))


def assert_close(outputs, expected):
    """Bounds the error as a whole by 1e-5, and that of each value by 3e-5.

    Processors and runtimes add up in different orders: 1.4e-5 was seen in one
    of 16,384 logits.
    """
    error = outputs - expected
    assert np.linalg.norm(error) < 1e-5 * np.linalg.norm(expected)
    assert np.abs(error).max() < 3e-5 * np.abs(expected).max()


def expected_outputs(published, name):
    """What the published networks give, in the form of ours."""
    vectors = published.vectors
    if name == "draem":
        return {
            "reconstruction": vectors["draem/reconstruction"],
            "segmentation": vectors["draem/segmentation"],
        }
    if name == "hf2vad":
        flows = vectors["hf2vad/of_recon"].reshape(2, 32, 32, 4, 2)
        return {
            "prediction": vectors["hf2vad/frame_pred"],
            "flow_reconstruction": flows.transpose(0, 3, 1, 2, 4),
        }
    task = name.partition("/")[2]
    return {"prediction": vectors[f"mnad/{task}/output"]}


def build(published, name, **arguments):
    host, _, task = name.partition("/")
    if task:
        arguments["task"] = task
    return getattr(published, host)(**arguments)


HOSTS = ["draem", "mnad/prediction", "mnad/reconstruction", "hf2vad"]


@pytest.mark.parametrize("name", HOSTS)
def test_outputs_are_those_of_the_published_network(published, name):
    model, inputs = build(published, name, channel_order="rgb")
    outputs = model.predict_on_batch(inputs)
    for output, expected in expected_outputs(published, name).items():
        assert_close(outputs[output], expected)
    if name.startswith("mnad"):
        assert_close(
            outputs["compactness"].mean(),
            published.vectors[f"{name}/compactness"],
        )


@pytest.mark.parametrize("name", ["draem", "mnad/prediction", "hf2vad"])
def test_colors_are_turned_around(published, name):
    """The same network, on RGB images: that is what users have."""
    model, inputs = build(published, name)
    if isinstance(inputs, dict):
        inputs = {**inputs, "appearance": inputs["appearance"][..., ::-1]}
    else:
        inputs = inputs[..., ::-1]
    outputs = model.predict_on_batch(inputs)
    for output, expected in expected_outputs(published, name).items():
        if output in ("reconstruction", "prediction"):
            expected = expected[..., ::-1]
        assert_close(outputs[output], expected)


@pytest.mark.slow
@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("name", ["draem", "mnad/prediction", "hf2vad"])
def test_exports_compute_the_published_network(published, name, to, tmp_path):
    model, inputs = build(published, name, channel_order="rgb")
    expected = expected_outputs(published, name)
    result = export_model(
        model,
        tmp_path / FORMATS[to],
        to,
        images=inputs,
        outputs=list(expected),
        allow_uncalibrated=True,
    )
    if not isinstance(inputs, dict):
        inputs = {model.inputs[0].name: inputs}
    outputs = load_runner(result.path)(**inputs)
    for output, value in expected.items():
        assert_close(outputs[output], value)


@pytest.mark.parametrize("naming", ["authors", "anomalib"])
def test_blocks_come_along(naming, tmp_path):
    """Of a small DRAEM, whose weights are written as PyTorch names them."""
    rng = np.random.default_rng(0)
    place = "reconstructive" if naming == "authors" else "bottleneck"
    arrays, block = small_draem(rng, place, naming)
    np.savez(tmp_path / "draem.npz", **arrays)
    model = DRAEM.from_published(tmp_path / "draem.npz", image_size=32)
    layer = model.get_layer(f"sspcab_{place}")
    assert isinstance(layer, SSPCABLayer)
    assert layer.reduction_ratio == 2
    activation = "relu" if naming == "authors" else "linear"
    assert layer.activation.__name__ == activation
    kernel = np.asarray(layer.masked_conv.kernel)
    corners = ((0, 0), (0, 1), (1, 0), (1, 1))
    for corner, weight in zip(corners, block, strict=True):
        np.testing.assert_array_equal(kernel[corner].T, weight[..., 0, 0])
    assert model.arguments["sspcab"] in (place, (place,))
    with pytest.raises(ValueError, match="from its arrays.*sspcab=None"):
        DRAEM.from_published(tmp_path / "draem.npz", sspcab=None)


def small_draem(rng, place, naming):
    """A checkpoint of both networks with widths 4 and 2, and one block."""
    arrays = {}

    def conv(name, inputs, outputs, norm=None):
        kernel = rng.standard_normal((outputs, inputs, 3, 3))
        arrays[f"{name}.weight"] = kernel * math.sqrt(2 / (9 * inputs))
        arrays[f"{name}.bias"] = rng.random(outputs)
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            if norm:
                arrays[f"{norm}.{leaf}"] = 0.5 + rng.random(outputs)

    def stage(name, inputs, middle, outputs):
        conv(f"{name}.0", inputs, middle, f"{name}.1")
        conv(f"{name}.3", middle, outputs, f"{name}.4")

    def network(encoder, decoder, inputs, outputs, width, blocks, skips):
        widths = [width * f for f in (1, 2, 4, 8, 8, 8)][:blocks]
        for index, channels in enumerate(widths, 1):
            stage(f"{encoder}.block{index}", inputs, channels, channels)
            inputs = channels
        names = ["_b", "1", "2", "3", "4"][6 - blocks :]
        for index, name in enumerate(names):
            wide = widths[::-1][1:][index]
            if not skips:
                narrow = max(wide // 2, width)
                conv(
                    f"{decoder}.up{name}.1",
                    inputs,
                    wide,
                    f"{decoder}.up{name}.2",
                )
                stage(f"{decoder}.db{name}", wide, wide, narrow)
                inputs = narrow
                continue
            up = (8, 4, 2, 1, 1)[index] * width
            conv(f"{decoder}.up{name}.1", inputs, up, f"{decoder}.up{name}.2")
            stage(f"{decoder}.db{name}", up + wide, up, up)
            inputs = up
        conv(f"{decoder}.fin_out.0", inputs, outputs)

    network("encoder", "decoder", 3, 3, 4, 5, skips=False)
    network("encoder_segment", "decoder_segment", 6, 2, 2, 6, skips=True)
    if naming == "authors":
        prefix, channels = "decoder.db4.3", 4
        convs, attention = ("conv1", "conv3", "conv2", "conv4"), "se"
    else:
        prefix, channels = "encoder.block5", 32
        convs = [f"masked_conv{index}" for index in range(1, 5)]
        attention = "attention_module"
    for name in [n for n in arrays if n.startswith(f"{prefix}.")]:
        del arrays[name]
    block = [rng.random((channels, channels, 1, 1)) for _ in convs]
    for name, weight in zip(convs, block, strict=True):
        arrays[f"{prefix}.{name}.weight"] = weight.astype("float32")
        arrays[f"{prefix}.{name}.bias"] = rng.random(channels)
    for name, shape in (
        ("fc1", (channels // 2, channels)),
        ("fc2", (channels, channels // 2)),
    ):
        arrays[f"{prefix}.{attention}.{name}.weight"] = rng.random(shape)
        arrays[f"{prefix}.{attention}.{name}.bias"] = rng.random(shape[0])
    arrays = {n: a.astype("float32") for n, a in arrays.items()}
    if naming == "anomalib":
        arrays = {
            (
                "model.discriminative_subnetwork."
                if "_segment" in name.partition(".")[0]
                else "model.reconstructive_subnetwork."
            )
            + name: array
            for name, array in arrays.items()
        }
    return arrays, [weight.astype("float32") for weight in block]


def test_cutpaste_of_pytorch(tmp_path):
    """A network whose weights are written with the names of PyTorch."""
    source = CutPaste((32, 32, 3), base_width=2, head_layers=2, sspcab=None)
    rng = np.random.default_rng(0)
    for weight in source.weights:
        weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    arrays = {}
    for layer in source.get_layer("trunk").layers:
        name = f"resnet18.{layer.name.replace('_', '.')}"
        _write_layer(arrays, name, layer)
    for index in range(3):
        _write_layer(
            arrays, f"head.{3 * index}", source.get_layer(f"head{index}")
        )
        norm = source.get_layer(f"head{index}_bn")
        _write_layer(arrays, f"head.{3 * index + 1}", norm)
    _write_layer(arrays, "out", source.get_layer("classes"))
    arrays["resnet18.bn1.num_batches_tracked"] = np.array(5)
    path = tmp_path / "model.tch"
    torch_save.save(torch_save.tensors(arrays), path, is_zip=False)
    loaded = CutPaste.from_published(path, image_size=32)
    images = rng.random((2, 32, 32, 3), dtype="float32")
    for name in ("embedding", "logits"):
        np.testing.assert_allclose(
            loaded.predict_on_batch(images)[name],
            source.predict_on_batch(images)[name],
            rtol=1e-5,
        )


def _write_layer(arrays, name, layer):
    """Adds the arrays of a layer as PyTorch has them."""
    if isinstance(layer, keras.layers.BatchNormalization):
        names = ("weight", "bias", "running_mean", "running_var")
        for leaf, value in zip(names, layer.get_weights(), strict=True):
            arrays[f"{name}.{leaf}"] = value
    elif layer.weights:
        kernel, *bias = layer.get_weights()
        axes = (3, 2, 0, 1) if kernel.ndim == 4 else (1, 0)
        arrays[f"{name}.weight"] = kernel.transpose(axes)
        if bias:
            arrays[f"{name}.bias"] = bias[0]


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="writes a TF1 checkpoint"
)
def test_future_frame_of_tensorflow_1(tmp_path):
    import tensorflow as tf

    source = FutureFrame((3, 16, 16, 3), base_width=2, sspcab=None)
    convs = [
        layer
        for layer in source.layers
        if layer.name.endswith(("conv1", "conv2", "output_conv"))
    ]
    ups = [layer for layer in source.layers if layer.name.endswith("_up")]
    assert (len(convs), len(ups)) == (15, 3)
    variables = {}
    for kind, layers in (("Conv", convs), ("Conv2d_transpose", ups)):
        for number, layer in enumerate(layers):
            scope = f"generator/{kind}" + (f"_{number}" if number else "")
            kernel, bias = layer.get_weights()
            variables |= {f"{scope}/weights": kernel, f"{scope}/biases": bias}
    variables["generator/Conv/weights/Adam"] = 1.0
    variables["discriminator/Conv/biases"] = 1.0
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        for name, value in variables.items():
            tf.compat.v1.Variable(value, name=name)
        session.run(tf.compat.v1.global_variables_initializer())
        path = tf.compat.v1.train.Saver().save(
            session, str(tmp_path / "model.ckpt"), global_step=80000
        )
    loaded = FutureFrame.from_published(path, image_size=16)
    clips = np.random.default_rng(0).random((2, 3, 16, 16, 3), "float32")
    np.testing.assert_allclose(
        loaded.predict_on_batch(clips)["prediction"],
        source.predict_on_batch(clips[..., ::-1])["prediction"][..., ::-1],
        rtol=1e-5,
    )
    with pytest.raises(ValueError, match="what its files begin with"):
        FutureFrame.from_published(tmp_path / "none.ckpt-1")


def test_names_that_do_not_fit_are_listed(tmp_path):
    arrays, _ = small_draem(
        np.random.default_rng(0), "reconstructive", "authors"
    )
    del arrays["decoder.up2.2.running_mean"]
    arrays["decoder.surplus"] = np.zeros(3, "float32")
    path = tmp_path / "draem.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match="up2.2.running_mean.*surplus"):
        DRAEM.from_published(path, image_size=32)
    with pytest.raises(ValueError, match="no checkpoint of this host"):
        MNAD.from_published(path, path)


@pytest.mark.slow
@pytest.mark.parametrize("host", [MNAD, HF2VAD])
def test_models_of_before_align_as_they_did(host):
    small = {
        MNAD: {"input_shape": (2, 16, 16, 1), "base_width": 2},
        HF2VAD: {
            "input_shape": (2, 16, 16, 1),
            "root_width": 2,
            "num_slots": 4,
            "base_width": 2,
        },
    }[host]
    former = host(**small, alignment="keras")
    config = former.get_config()
    del config["alignment"], config["trainable_parts"]
    loaded = host.from_config(config)
    loaded.set_weights(former.get_weights())
    published = host(**small)
    published.set_weights(former.get_weights())
    inputs = {
        tensor.name: np.random.default_rng(0)
        .random((2, *tensor.shape[1:]))
        .astype("float32")
        for tensor in former.inputs
    }
    if len(inputs) == 1:
        (inputs,) = inputs.values()
    before, after, other = (
        model.predict_on_batch(inputs)["prediction"]
        for model in (former, loaded, published)
    )
    np.testing.assert_array_equal(after, before)
    assert np.any(other != before)
