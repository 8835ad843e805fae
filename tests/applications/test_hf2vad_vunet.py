import numpy as np
import pytest
from keras import ops

from keras_sspcab.applications.hf2vad_vunet import vunet
from keras_sspcab.layers import SSPCABLayer

TINY = {"input_shape": (16, 32, 2), "num_frames": 3, "base_width": 2}


def numpy(x):
    return ops.convert_to_numpy(x).astype("float64")


def crops(count=2, shape=(16, 32), channels=6, flows=6, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "frames": rng.random((count, *shape, channels)).astype("float32"),
        "flows": rng.normal(size=(count, *shape, flows)).astype("float32"),
    }


def randomize(model, seed=0):
    """Gives every weight a value of its own."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(rng.normal(0, 0.5, weight.shape))
    return model


@pytest.fixture(scope="module")
def paper():
    return vunet()


@pytest.mark.parametrize(
    ("part", "count"),
    [
        ("frame_encoder", 1_333_760),
        ("flow_encoder", 1_332_992),
        ("posterior", 1_579_008),
        ("prior", 3_075_584),
        ("decoder", 1_669_324),
    ],
)
def test_parameter_counts(paper, part, count):
    assert paper.get_layer(part).count_params() == count


class Wiring:
    """The specification's data flow, with the model's convolutions."""

    def __init__(self, model):
        self.model = model

    def conv(self, part, name, x):
        # Parts of a scale carry its number: "posterior4_merge_conv".
        name = part + name if name[0].isdigit() else f"{part}_{name}"
        layer = self.model.get_layer(part).get_layer(name)
        return numpy(layer(x.astype("float32")))

    def block(self, part, name, x, skip=None):
        y = x
        if skip is not None:
            skip = self.conv(part, f"{name}_skip_conv", elu(skip))
            y = np.concatenate([x, skip], -1)
        return x + self.conv(part, f"{name}_conv", elu(y))

    def up(self, part, name, x):
        return depth_to_space(self.conv(part, f"{name}_conv", x))

    def encode(self, part, x):
        x, maps = self.conv(part, "stem", x), {}
        for scale in range(1, 5):
            if scale > 1:
                x = self.conv(part, f"down{scale}", x)
            for index in (1, 2):
                x = self.block(part, f"scale{scale}_{index}", x)
                maps[scale, index] = x
        return maps

    def posterior(self, s):
        part = "posterior"
        h = self.conv(part, "stem", s[4, 2])
        q4 = h = self.block(part, "mean4", h, s[4, 2])
        both = np.concatenate([s[4, 1], q4], -1)
        g = self.conv(part, "4_merge_conv", both)
        h = self.up(part, "up", self.block(part, "block4", h, g))
        return q4, self.block(part, "mean3", h, s[3, 2])

    def groups(self, h, z):
        part = "prior"
        f = space_to_depth(self.block(part, "groups_first", h))
        quarters = [self.conv(part, "groups_start", f)]
        for i, known in enumerate(np.split(space_to_depth(z), 4, -1)[:3], 1):
            quarters.append(self.block(part, f"groups{i}", quarters[-1], known))
        return depth_to_space(np.concatenate(quarters, -1))

    def prior(self, s, z4, z3):
        part, means = "prior", []
        h = self.conv(part, "stem", s[4, 2])
        for scale, z in ((4, z4), (3, z3)):
            h = self.block(part, f"{scale}_first", h, s[scale, 2])
            means.append(self.groups(h, z))
            both = np.concatenate([s[scale, 1], z], -1)
            g = self.conv(part, f"{scale}_merge_conv", both)
            h = self.block(part, f"{scale}_last", h, g)
            if scale == 4:
                h = self.up(part, "up", h)
        return means, h

    def decode(self, h, s):
        part = "decoder"
        for scale in (2, 1):
            h = self.up(part, f"up{scale}", h)
            for index in (2, 1):
                name = f"scale{scale}_{index}"
                h = self.block(part, name, h, s[scale, index])
        return 1 / (1 + np.exp(-self.conv(part, "output", h)))


def elu(x):
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def depth_to_space(x):
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, 2 * h, 2 * w, c // 4)


def space_to_depth(x):
    b, h, w, c = x.shape
    x = x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h // 2, w // 2, 4 * c)


def test_follows_the_specification():
    model, x = randomize(vunet(**TINY)), crops()
    wiring = Wiring(model)
    s = wiring.encode(
        "frame_encoder", np.concatenate([x["frames"], x["flows"]], -1)
    )
    q4, q3 = wiring.posterior(s)
    (p4, p3), features = wiring.prior(
        wiring.encode("flow_encoder", x["flows"]), q4, q3
    )
    outputs = model(x, training=False)
    np.testing.assert_allclose(
        numpy(outputs["prediction"]), wiring.decode(features, s), atol=1e-3
    )
    divergence = sum(
        0.5 * ((p - q) ** 2).sum((1, 2, 3)) for p, q in ((p4, q4), (p3, q3))
    )
    np.testing.assert_allclose(
        numpy(outputs["divergence"]), divergence, rtol=1e-3
    )


def test_noise_in_training_only():
    model, x = vunet(**TINY, dropout_rate=0.0), crops()
    first, second = (numpy(model(x)["prediction"]) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    noisy = [numpy(model(x, training=True)["prediction"]) for _ in range(2)]
    assert np.abs(noisy[0] - noisy[1]).max() > 1e-4
    posterior = model.get_layer("posterior")
    maps = model.get_layer("frame_encoder")(
        np.zeros((500, 16, 32, 12), "float32")
    )
    outputs = posterior(
        {t.name: maps[t.name] for t in posterior.inputs}, training=True
    )
    for scale in (3, 4):
        noise = numpy(outputs[f"latent{scale}"] - outputs[f"mean{scale}"])
        assert noise.mean() == pytest.approx(0, abs=0.05)
        assert noise.std() == pytest.approx(1, abs=0.05)


def test_block_is_before_the_output():
    model = vunet(**TINY, sspcab_options={"name": "sspcab_decoder"})
    decoder = model.get_layer("decoder")
    (block,) = (x for x in decoder.layers if isinstance(x, SSPCABLayer))
    after = decoder.get_layer("decoder_output")
    assert after.input is block.output
    before = block.input._keras_history.operation
    assert before.name == "decoder_scale1_1_add"
    assert block.input.shape[-1] == 2


def test_bad_dropout_rate():
    with pytest.raises(ValueError, match=r"dropout_rate=1.0"):
        vunet(**TINY, dropout_rate=1.0)
