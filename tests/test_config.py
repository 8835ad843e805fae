from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_sspcab.applications import DRAEM, AutoEncoder, MultiScalePaDiM
from keras_sspcab.runs import (
    CalibrationConfig,
    Config,
    ConfigError,
    DataConfig,
    ModelConfig,
    TrainingConfig,
)
from keras_sspcab.runs.parsing import (
    differences,
    load_config,
    parse_setting,
    write_config,
)
from tests.scripts import run_script

AUTOENCODER = {"model.name": "autoencoder"}
FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "c.toml"
        path.write_text(text)
        return str(path)

    return write


def test_defaults_are_those_of_the_model():
    config = load_config()
    defaults = MultiScalePaDiM.default_settings
    assert config.model.name == "multiscale_padim"
    assert config.model.options == {"sspcab": None}
    assert config.data == DataConfig(patch_size=0, image_size=(320, 320))
    assert config.training == TrainingConfig(**defaults["training"])
    assert config.calibration == CalibrationConfig(quantile=0.95)
    config = load_config(None, AUTOENCODER)
    assert config.model.options == AutoEncoder.default_settings["model"]
    assert config.data == DataConfig(patch_size=64)
    config = load_config(None, {"model.name": "draem", "training.epochs": 3})
    assert (
        config.training.batch_size
        == (DRAEM.default_settings["training"]["batch_size"])
    )
    assert config.training.epochs == 3


def test_files_may_begin_with_a_mark_of_their_encoding(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text("[training]\r\nepochs = 3\r\n", encoding="utf-8-sig")
    assert load_config(str(path), AUTOENCODER).training.epochs == 3


def test_file_is_stronger_than_defaults_and_command_line_than_file(write):
    path = write(
        """
        [data]
        path = "images"
        image_size = 64
        [model]
        name = "autoencoder"
        smoothing = 5
        sspcab = "none"
        [model.sspcab_options]
        loss_weight = 0.3
        attention = "none"
        [training]
        epochs = 7
        learning_rate = 1
        """
    )
    config = load_config(
        path,
        {"training.epochs": 9, "model.sspcab_options.loss": "mae"},
    )
    assert config.data.path == "images"
    assert config.data.image_size == (64, 64)
    assert config.model.options == {
        **AutoEncoder.default_settings["model"],
        "sspcab": None,
        "smoothing": 5,
        "sspcab_options": {
            "loss_weight": 0.3,
            "attention": None,
            "loss": "mae",
        },
    }
    assert config.training.epochs == 9
    assert config.training.learning_rate == 1.0
    assert isinstance(config.training.learning_rate, float)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[dat]",
            r"Unknown section \[dat\] in .*c\.toml\. Did you mean \[data\]\? "
            "Allowed are: data",
        ),
        ("data = 3", r"`data` in .*c\.toml must be a section"),
        (
            "[data]\npth = 'x'",
            r"Unknown key `data\.pth` in .*c\.toml\. Did you mean `path`\? "
            r"Allowed in \[data\] are: brightness, cache,",
        ),
        (
            "[model]\nname = 'autoencoder'\nfilter = 3",
            r"Unknown key `model\.filter` in .*Did you mean `filters`\?",
        ),
        (
            "[model]\nname = 'autoencodr'",
            "no model named 'autoencodr'. Did you mean 'autoencoder'",
        ),
        ("[model]\nname = ['mnad']", "`model.name` .* must be a text"),
        (
            "[training]\nepochs = 'x'",
            r"`training\.epochs` in .*c\.toml must be an integer, at least 1. "
            r"Received: 'x'",
        ),
        (
            "[training]\nepochs = true",
            "must be an integer, at least 1. Received: True",
        ),
        ("[training]\njit_compile = 1", "must be true or false"),
        ("[training]\nlearning_rate = '1'", "must be a number"),
        ("[training]\nlearning_rate = nan", "must be a finite number"),
        ("[data]\nimage_size = [1, 2, 3]", "integer or a list of two"),
        ("[data]\nimage_size = -8", "must be a positive integer or"),
        ("[data]\nchannels = 4", r"cannot be 4. Allowed are: 1, 3$"),
        (
            "[data]\npatch_size = 400",
            r"at most the image size, which is \[320, 320\]",
        ),
        (
            "[model]\nname = 'autoencoder'\n[data]\nimage_size = 32",
            r"`data.patch_size` \(the default of autoencoder\) must be 0",
        ),
        ("[data]\nvalidation_fraction = 0.0", "a number, above 0, below 1"),
        (
            "[data]\nlayout = 'mvtek'",
            r"`data\.layout` in .*c\.toml cannot be 'mvtek'. Did you mean "
            r"'mvtec'\? Allowed are: auto, mvtec, plain, products, ucsd",
        ),
        ("[data]\npatches_per_image = 0", "at least 1"),
        ("[training]\nseed = -1", "at least 0"),
        ("[training]\nseed = 4294967296", "below 4294967296"),
        ("[calibration]\nquantile = 1.1", "at most 1"),
        ("[objects]\nboxes = ''", "a text, not empty"),
        ("[objects]\nmotion_blur = 2", "an odd number of pixels"),
        ("[evaluation]\nsmoothing_size = 4", "an odd number of frames"),
        ("[evaluation]\nupdate_memory = true", "Unknown key `evaluation.upd"),
        (
            "[model]\nname = 'cutpaste'\nfreeze_backbone = 'no'",
            r"`model.freeze_backbone` in .* must be true or false",
        ),
        ("[model]\nsspcab = 3", 'must be a text or a list or "none"'),
        ("[model]\nsspcab_options = 'x'", 'must be a table or "none"'),
        ("[data", r"c\.toml is no valid TOML: "),
    ],
)
def test_errors_name_the_key_and_the_file(write, text, message):
    with pytest.raises(ConfigError, match=message):
        load_config(write(text))


def test_all_errors_are_told_at_once(write):
    path = write("[dat]\n[data]\nflip = 1\nlayout = 'x'\n[model]\nwidht = 3")
    with pytest.raises(ConfigError) as raised:
        load_config(path, {"training.epoch": 1, "training.seed": "x"})
    lines = str(raised.value).splitlines()
    for place in (
        f"[dat] in {path}",
        f"`data.flip` in {path}",
        f"`data.layout` in {path}",
        f"`model.widht` in {path}",
        "`training.epoch`",
        "`training.seed`",
    ):
        assert sum(place in line for line in lines) == 1
    assert len(lines) == 6


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"train.epochs": 1}, r"section \[train\]\. Did you mean \[training\]"),
        ({"training": 1}, "section.key=value"),
        ({"training.epochs.x": 3}, r"Unknown key `training\.epochs\.x`"),
        ({"model.name": "mnad", "evaluation.update_memory": 1}, "true or fal"),
    ],
)
def test_errors_name_the_command_line(override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(None, override)


def test_missing_file_is_named():
    with pytest.raises(
        ConfigError, match=r"no configuration file at 'x\.toml'"
    ):
        load_config("x.toml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data.flip = true", ("data.flip", True)),
        ("data.image_size=[3, 4]", ("data.image_size", [3, 4])),
        ("model.pooling=mean", ("model.pooling", "mean")),
        ("data.path=a=b", ("data.path", "a=b")),
    ],
)
def test_settings_of_the_command_line(text, expected):
    assert parse_setting(text) == expected


@pytest.mark.parametrize("text", ["training.epochs", "=3", ""])
def test_settings_need_key_and_value(text):
    with pytest.raises(ConfigError, match="form section.key=value"):
        parse_setting(text)


_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


@settings(max_examples=60)
@given(
    path=_TEXT,
    size=st.tuples(st.integers(1, 999), st.integers(1, 999)),
    rate=st.floats(0, 1),
    quantile=st.floats(0, 1, exclude_min=True),
    flip=st.booleans(),
    options=st.dictionaries(
        st.sampled_from(["sspcab", "pooling", "sspcab_options", "a-b"]),
        st.one_of(
            st.none(),
            st.integers(-(2**63), 2**63 - 1),
            st.floats(allow_nan=False),
            _TEXT.filter(lambda text: text.lower() != "none"),
            st.lists(st.integers(0, 9)),
            st.dictionaries(st.sampled_from("ab"), st.none() | st.booleans()),
        ),
    ),
)
def test_written_configuration_reads_back_the_same(
    tmp_path_factory, path, size, rate, quantile, flip, options
):
    config = Config(
        data=DataConfig(path=path, image_size=size, flip=flip),
        model=ModelConfig(name="autoencoder", **options),
        training=TrainingConfig(learning_rate=rate),
        calibration=CalibrationConfig(quantile=quantile),
    )
    file = tmp_path_factory.mktemp("config") / "c.toml"
    write_config(str(file), config)
    assert load_config(str(file), is_complete=True) == config


def test_options_of_a_host_in_evaluation_are_read_and_written(write):
    chosen = {"model.name": "mnad", "evaluation.update_memory": True}
    config = load_config(None, chosen)
    assert config.evaluation.options == {"update_memory": True}
    path = write("")
    write_config(path, config)
    assert load_config(path, is_complete=True) == config


@pytest.mark.parametrize("run", ["image_run", "video_run"])
def test_configurations_of_older_versions_are_read(run):
    path = FIXTURES / run / "config.toml"
    config = load_config(str(path), is_complete=True)
    before = "none" if run == "video_run" else "per_video"
    assert config.evaluation.normalization == before
    is_on = config.evaluation.options.get("update_memory", False)
    assert not is_on


def test_complete_configuration_is_read_without_keras(write):
    path = write("")
    write_config(path, load_config())
    run_script(
        "import sys; from keras_sspcab.runs.parsing import load_config; "
        f"load_config({path!r}, is_complete=True); "
        "assert 'keras' not in sys.modules"
    )


def test_configurations_cannot_be_changed():
    config = Config()
    with pytest.raises(ValueError, match="frozen"):
        config.training.epochs = 3
    with pytest.raises(ValueError, match="epochs"):
        TrainingConfig(epochs=0)


def test_differences_are_named():
    before = load_config(None, {**AUTOENCODER, "model.smoothing": 3})
    changes = {"training.epochs": 1, "model.filters": [1]}
    after = load_config(None, {**AUTOENCODER, **changes})
    assert differences(before, before) == {}
    assert differences(before, after) == {
        "model.smoothing": (
            3,
            AutoEncoder.default_settings["model"]["smoothing"],
        ),
        "model.filters": (None, [1]),
        "training.epochs": (TrainingConfig().epochs, 1),
    }
