import dataclasses
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_sspcab.applications import DRAEM, AutoEncoder, MultiScalePaDiM
from keras_sspcab.cli.demo import DEMO, DEMO_FAST
from keras_sspcab.runs import (
    CalibrationConfig,
    Config,
    ConfigError,
    DataConfig,
    ModelConfig,
    RunFolder,
    TrainingConfig,
    default_run_path,
    files,
)
from keras_sspcab.runs.parsing import (
    differences,
    dump_config,
    load_config,
    parse_setting,
    write_config,
)

AUTOENCODER = {"model.name": "autoencoder"}


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "c.toml"
        path.write_text(text)
        return str(path)

    return write


# === Configuration ===


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
        ("[dat]", r"Unknown section \[dat\] in .*c\.toml\. Allowed are: data"),
        ("data = 3", r"`data` in .*c\.toml must be a section"),
        (
            "[data]\npth = 'x'",
            r"Unknown key `data\.pth` in .*c\.toml\. Allowed in \[data\] are: "
            "cache, channels,",
        ),
        (
            "[training]\nepochs = 'x'",
            r"`training\.epochs` in .*c\.toml must be an integer. "
            r"Received: 'x'",
        ),
        ("[training]\nepochs = true", "must be an integer. Received: True"),
        ("[training]\nepochs = 1.5", "must be an integer. Received: 1.5"),
        ("[training]\njit_compile = 1", "must be true or false"),
        ("[training]\nlearning_rate = '1'", "must be a number"),
        ("[data]\nimage_size = [1, 2, 3]", "integer or a list of two"),
        ("[data]\nimage_size = [8, 1.5]", "integer or a list of two"),
        ("[model]\nname = 3", "`model.name` .* must be a string"),
        (
            "[data]\nchannels = 4",
            r"`data\.channels` must be 1 or 3. Received: 4 \(in .*c\.toml\)",
        ),
        ("[data]\npatch_size = 400", r"at most the image size \[320, 320\]"),
        ("[data]\nvalidation_fraction = 0.0", "between 0 and 1"),
        ("[data]\nvalidation_fraction = 1.0", "between 0 and 1"),
        ("[data]\nlayout = 'coco'", "must be one of"),
        ("[data]\ncache = 'ram'", "must be one of"),
        ("[data]\non_error = 'stop'", "must be one of"),
        ("[data]\npatches_per_image = 0", "at least 1"),
        ("[data]\nimage_size = 0", "must be positive"),
        ("[training]\nepochs = 0", "at least 1"),
        ("[training]\nseed = -1", "from 0 to"),
        ("[training]\nmixed_precision = 'half'", "must be one of"),
        ("[training]\ncheckpoint_every_seconds = -1", "at least 0"),
        ("[calibration]\nquantile = 1.1", "above 0 and at most 1"),
        ("[data", r"c\.toml is no valid TOML: "),
    ],
)
def test_errors_name_the_key_and_the_file(write, text, message):
    with pytest.raises(ConfigError, match=message):
        load_config(write(text))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"training.epoch": 1}, "Unknown key `training.epoch` on the command"),
        ({"training.epochs": "x"}, "on the command line must be an integer"),
        ({"train.epochs": 1}, r"Unknown section \[train\] on the command"),
        ({"training": 1}, "section.key=value"),
        ({"model.sspcab.loss": 1}, "`sspcab` is no table"),
    ],
)
def test_errors_name_the_command_line(write, override, message):
    path = write("[model]\nsspcab = 'late'")
    with pytest.raises(ConfigError, match=message):
        load_config(path, override)


def test_missing_file_is_named():
    with pytest.raises(
        ConfigError, match=r"no configuration file at 'x\.toml'"
    ):
        load_config("x.toml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("training.epochs=3", ("training.epochs", 3)),
        ("data.flip = true", ("data.flip", True)),
        ("data.image_size=[3, 4]", ("data.image_size", [3, 4])),
        ("model.pooling=mean", ("model.pooling", "mean")),
        ("model.pooling='mean'", ("model.pooling", "mean")),
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


@settings(max_examples=60, deadline=None)
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
        data=DataConfig(path=path, image_size=size, patch_size=0, flip=flip),
        model=ModelConfig(
            name="autoencoder",
            options={**AutoEncoder.default_settings["model"], **options},
        ),
        training=TrainingConfig(learning_rate=rate),
        calibration=CalibrationConfig(quantile=quantile),
    )
    file = tmp_path_factory.mktemp("config") / "c.toml"
    write_config(str(file), config)
    assert load_config(str(file)) == config


def test_every_setting_stands_in_the_file():
    text = dump_config(Config())
    for section in ("data", "training", "calibration"):
        for field in dataclasses.fields(getattr(Config(), section)):
            assert f"\n{field.name} = " in text


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


@pytest.mark.parametrize("recipe", [DEMO, DEMO_FAST])
def test_recipes_of_the_demo_are_valid(recipe):
    load_config(None, {**recipe["settings"], **recipe["texture_settings"]})


# === Folder ===


def test_run_folder_is_created_and_opened(tmp_path):
    config = load_config(None, {"training.seed": 5})
    run = RunFolder(str(tmp_path / "a" / "b"))
    assert not run.exists
    assert run.record == {}
    run.create(config)
    assert run.exists
    assert not run.is_finished
    assert RunFolder(run.path).config == config
    record = run.record
    assert record["seed"] == 5
    assert record["versions"].keys() >= {"python", "keras", "keras-sspcab"}
    assert record["state"] == "training"
    run.update_record(extra=1)
    assert run.record == {**record, "extra": 1}


def test_run_folder_is_never_overwritten(tmp_path):
    run = RunFolder(str(tmp_path / "r"))
    run.create(Config())
    with pytest.raises(ValueError, match="an interrupted run. Continue it wi"):
        run.create(Config())
    Path(run.file("model.keras")).touch()
    with pytest.raises(ValueError, match="an interrupted run"):
        run.create(Config())
    run.update_record(state="finished")
    assert run.is_finished
    with pytest.raises(ValueError, match="a finished run. Train it further"):
        run.create(Config())


def test_run_folder_leaves_other_files_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="not empty and holds no run"):
        RunFolder(str(tmp_path)).create(Config())
    with pytest.raises(ValueError, match="is a file"):
        RunFolder(str(tmp_path / "thesis.txt")).create(Config())
    assert os.listdir(tmp_path) == ["thesis.txt"]


def test_start_that_was_killed_at_once_can_be_repeated(tmp_path):
    run = RunFolder(str(tmp_path))
    run.update_record(state="training")
    run.create(Config())
    assert run.exists


def test_what_is_missing_is_told_with_the_command(tmp_path):
    run = RunFolder(str(tmp_path / "r"))
    with pytest.raises(ValueError, match=r"no run folder .*written by `make`"):
        run.require("x", "make")
    os.mkdir(run.path)
    with pytest.raises(ValueError, match=r"no run folder: it has no config"):
        run.require("x", "make")
    run.create(Config())
    with pytest.raises(ValueError, match=r"has no x yet. It is written by"):
        run.require("x", "make")
    assert run.require("config.toml", "make") == run.file("config.toml")


def test_broken_record_is_named(tmp_path):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"run\.json is no valid JSON"):
        _ = RunFolder(str(tmp_path)).record


def test_default_path_is_free_and_safe(tmp_path):
    config = load_config(None, {**AUTOENCODER, "data.path": "/data/my screws!"})
    root = str(tmp_path / "runs")
    first = default_run_path(config, root)
    assert first == os.path.join(root, "autoencoder-my_screws_-1")
    RunFolder(first).create(config)
    assert default_run_path(config, root).endswith("-2")


# === Files ===


def test_files_are_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "f.json"
    files.write_json(str(path), {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(str(path), {"a": float("nan")})

    def write_half():
        with files.replacing(str(path)) as temporary:
            Path(temporary).write_text("half")
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        write_half()
    assert json.loads(path.read_text()) == {"a": 1}
    assert os.listdir(tmp_path) == ["f.json"]


def test_folders_are_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "folder"

    def write(text, fail=False):
        with files.replacing_folder(str(path)) as temporary:
            Path(temporary, text).touch()
            if fail:
                raise RuntimeError("boom")

    write("a")
    write("b")
    with pytest.raises(RuntimeError, match="boom"):
        write("c", fail=True)
    assert os.listdir(path) == ["b"]
    assert os.listdir(tmp_path) == ["folder"]


def test_csv_has_the_columns_asked_for(tmp_path):
    path = tmp_path / "t.csv"
    files.write_csv(str(path), ["a", "b"], [{"a": 1, "b": "x,y"}, {"a": None}])
    assert path.read_bytes() == b'a,b\n1,"x,y"\n,\n'


def test_only_the_model_has_tables_inside():
    options = load_config(None, {"model.sspcab_options.loss": "mae"})
    assert options.model.options["sspcab_options"] == {"loss": "mae"}
    with pytest.raises(ConfigError, match=r"`training\.epochs\.x`.*Only"):
        load_config(None, {"training.epochs.x": 3})


def test_defaults_of_a_model_cover_all_sections():
    config = load_config(None, {"model.name": "draem"})
    defaults = DRAEM.default_settings
    assert config.model.options == defaults["model"]
    assert config.data.patch_size == 0
    assert config.training.batch_size == defaults["training"]["batch_size"]
    stronger = load_config(
        None, {"model.name": "draem", "training.batch_size": 3}
    )
    assert stronger.training.batch_size == 3
    assert stronger.training.epochs == defaults["training"]["epochs"]
