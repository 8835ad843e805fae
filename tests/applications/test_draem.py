import keras
import numpy as np
import pytest

from keras_sspcab.applications import DRAEM
from tests.applications.helpers import TENSORFLOW, count, noise_images

SMALL = {"input_shape": (32, 32, 3), "base_width": 4, "smoothing": 3}

BN_STATISTICS = 21_504 + 14_080


def model(**arguments):
    result = DRAEM(**{**SMALL, **arguments})
    result.compile()
    return result


@pytest.fixture(scope="module")
def paper():
    """The paper's network, without the block."""
    return DRAEM(sspcab=None)


def test_parameter_counts_of_the_paper(paper):
    encoder = count(paper, "reconstructive_encoder")
    decoder = count(paper, "reconstructive_decoder", "reconstruction")
    assert (encoder, decoder) == (37_622_400, 31_426_179)
    contracting = count(paper, "discriminative_encoder")
    expanding = count(paper, "discriminative_decoder", "segmentation")
    assert (contracting, expanding) == (14_134_272, 14_239_874)
    total = encoder + decoder + contracting + expanding
    assert total == 97_422_725
    assert paper.count_params() == total + BN_STATISTICS


@pytest.mark.parametrize(
    ("place", "layer", "before", "after"),
    [
        ("reconstructive", "reconstructive_decoder4_conv2", 147_584, 70_288),
        ("discriminative", "discriminative_decoder5_conv2", 36_928, 17_736),
    ],
)
def test_blocks_replace_the_penultimate_convolutions(
    paper, place, layer, before, after
):
    replaced = paper.get_layer(layer)
    assert replaced.count_params() == before
    with_block = DRAEM(sspcab=place)
    block = with_block.get_layer(f"sspcab_{place}")
    assert block.count_params() == after
    assert block.input.shape == replaced.input.shape
    # The block's input has been activated, its output is normalized.
    assert block.input._keras_history.operation.name.endswith("conv1_relu")
    with_block.get_layer(f"sspcab_{place}_norm")
    assert with_block.count_params() == paper.count_params() - before + after


def test_block_in_the_bottleneck(paper):
    stage = count(paper, "reconstructive_encoder5")
    model = DRAEM(sspcab="bottleneck")
    block = model.get_layer("sspcab_bottleneck")
    assert (stage, block.count_params()) == (18_880_512, 4_461_696)
    assert block.input.shape[1:] == (16, 16, 1024)


def test_scores_follow_from_the_segmentation():
    detector = model(smoothing=5)
    with pytest.warns(UserWarning, match="not been calibrated"):
        outputs = detector.predict(noise_images(4), verbose=0)
    logits = outputs["segmentation"]
    exponentials = np.exp(logits.astype("float64"))
    probability = exponentials[..., 1] / exponentials.sum(-1)
    np.testing.assert_allclose(
        outputs["anomaly_map"], probability, rtol=1e-4, atol=1e-6
    )
    padded = np.pad(probability, ((0, 0), (2, 2), (2, 2)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), (1, 2))
    # The divisor is the size of the window at the border too.
    means = windows.sum((-1, -2)) / 25
    np.testing.assert_allclose(
        outputs["raw_score"], means.max((1, 2)), rtol=1e-4
    )


@pytest.mark.skipif(
    not TENSORFLOW,
    reason="compiling its training step takes minutes on other backends",
)
def test_losses_add_up_on_gray_images():
    detector = DRAEM((32, 32, 1), base_width=4, smoothing=3)
    detector.compile(steps=4, run_eagerly=True)
    x = noise_images(4, channels=1)
    history = detector.fit(x, verbose=0).history
    loss, *parts = (
        history[f"{name}loss"][0]
        for name in ("", "sspcab_", "reconstruction_", "segmentation_")
    )
    assert loss == pytest.approx(sum(parts), rel=1e-3)
    blocks = [
        history[f"sspcab_{place}_loss"][0]
        for place in ("reconstructive", "discriminative")
    ]
    assert min(blocks) > 0
    assert sum(blocks) == pytest.approx(parts[0], rel=1e-4)
    shapes = {name: part.shape for name, part in detector(x).items()}
    assert shapes["reconstruction"] == (4, 32, 32, 1)
    assert shapes["segmentation"] == (4, 32, 32, 2)


def test_gradients_of_the_segmentation_reach_the_reconstruction():
    if not TENSORFLOW:
        pytest.skip("takes gradients with TensorFlow")
    import tensorflow as tf

    detector = model(sspcab=None)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(detector(noise_images(4))["segmentation"][..., 1])
    kernel = detector.get_layer("reconstructive_encoder1_conv1").kernel
    gradient = tape.gradient(loss, kernel.value)
    assert float(tf.reduce_max(tf.abs(gradient))) > 0


def test_file_names_the_folder_of_textures(tmp_path):
    detector = model(texture_folder=tmp_path / "textures")
    detector.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", compile=False)
    assert loaded.arguments["texture_folder"] == str(tmp_path / "textures")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_shape": (100, 64, 3)}, "a multiple of 32.*100, 64, 3"),
        ({"base_width": 1}, "base_width=1"),
        ({"discriminative_width": 0}, "discriminative_width=0"),
        ({"smoothing": 4}, "must be odd"),
        ({"anomaly_probability": 0.0}, "anomaly_probability=0.0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        model(**arguments)


def test_bad_training_data():
    detector = model()
    with pytest.raises(ValueError, match="3 channels.*images with 1.*=3"):
        detector.fit(noise_images(channels=1))
    with pytest.raises(ValueError, match="an array.*Received: list"):
        detector.fit([noise_images()])
    with pytest.raises(ValueError, match="of shape .0, 32, 32, 3"):
        detector.fit(noise_images(0))
    with pytest.raises(ValueError, match="pairs of an input and a dict"):
        detector.fit(noise_images(), noise_images(), verbose=0)
    with pytest.raises(ValueError, match="the host's own optimizer"):
        detector.compile("adam", steps=3)
