import inspect

import pytest

from keras_sspcab.applications import AutoEncoder
from keras_sspcab.compare.settings import HostSettings
from keras_sspcab.hosts import available_applications
from keras_sspcab.runs import ConfigError, DataConfig

TWO = ("autoencoder", "draem")


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "c.toml"
        path.write_text(text)
        return str(path)

    return write


def test_settings_grow_stronger_from_defaults_to_options_of_a_host(write):
    path = write(
        """
        [training]
        epochs = 1
        batch_size = 1
        learning_rate = 1
        [draem.training]
        batch_size = 2
        learning_rate = 2
        [draem.data]
        image_size = 128
        [cutpaste.training]
        epochs = 77
        """
    )
    options = ["training.learning_rate=3", "autoencoder:training.epochs=4"]
    settings = HostSettings(TWO, path, options)
    a = settings.config("autoencoder", "/d", "off", 5)
    b = settings.config("draem", "/d", "on", 6)
    assert (a.training.epochs, a.training.batch_size) == (4, 1)
    assert (b.training.epochs, b.training.batch_size) == (1, 2)
    assert a.training.learning_rate == b.training.learning_rate == 3
    assert (a.training.seed, b.training.seed) == (5, 6)
    assert a.data.path == "/d"
    assert a.data.image_size == DataConfig().image_size
    assert b.data.image_size == (128, 128)
    assert b.data.patch_size == 0


def test_blocks_become_places():
    settings = HostSettings(TWO)

    def place(model, block):
        options = settings.config(model, "", block, 0).model.options
        return options.get("sspcab", "left out")

    assert place("autoencoder", "off") is None
    assert place("draem", "off") is None
    defaults = AutoEncoder.default_settings["model"]
    assert place("autoencoder", "on") == defaults["sspcab"]
    assert place("draem", "on") == "left out"
    assert place("autoencoder", "early") == "early"


def test_variants_of_the_block_and_several_places(write):
    path = write(
        """
        [model.sspcab_options]
        loss_weight = 0.5
        [blocks.mae]
        loss = "mae"
        attention = "none"
        """
    )
    settings = HostSettings(["autoencoder", "draem"], path)

    def options(model, block):
        chosen = settings.config(model, "", block, 0).model.options
        return chosen.get("sspcab", "own"), chosen["sspcab_options"]

    plain, mae = {"loss_weight": 0.5}, {"loss": "mae", "attention": None}
    assert options("autoencoder", "early+late") == (["early", "late"], plain)
    assert options("autoencoder", "mae@early") == ("early", plain | mae)
    assert options("draem", "mae@on") == ("own", plain | mae)
    # Alone, in the model's own place.
    assert options("draem", "mae") == ("own", plain | mae)
    assert options("autoencoder", "late") == ("late", plain)
    assert settings.variants_in(["off", "mae@early", "late"]) == {
        "mae": {"loss": "mae", "attention": "none"}
    }
    with pytest.raises(ConfigError, match="no variant 'mea'.*Did you mean"):
        options("draem", "mea@on")


def test_hosts_without_a_block_by_default_have_a_place_for_it():
    model = "multiscale_padim"
    settings = HostSettings([model])

    def place(block):
        return settings.config(model, "", block, 0).model.options["sspcab"]

    assert place("off") is None
    assert place("on") == "features"
    assert place("elsewhere") == "elsewhere"
    # What a comparison varies is no setting that was changed.
    assert settings.changed(model) == {}


@pytest.mark.parametrize("model", sorted(available_applications()))
def test_every_host_has_a_block_where_a_comparison_wants_one(model):
    config = HostSettings([model]).config(model, "", "on", 0)
    default = inspect.signature(available_applications()[model]).parameters[
        "sspcab"
    ]
    assert config.model.options.get("sspcab", default.default) is not None


def test_tables_in_the_model_are_merged(write):
    path = write(
        """
        [model.sspcab_options]
        loss_weight = 0.1
        reduction_ratio = 4
        [draem.model.sspcab_options]
        loss_weight = 0.2
        """
    )
    settings = HostSettings(TWO, path, ["draem:model.sspcab_options.a=1"])
    assert settings.config("autoencoder", "", "on", 0).model.options[
        "sspcab_options"
    ] == {"loss_weight": 0.1, "reduction_ratio": 4}
    assert settings.config("draem", "", "on", 0).model.options[
        "sspcab_options"
    ] == {"loss_weight": 0.2, "reduction_ratio": 4, "a": 1}


def test_changed_settings_are_those_that_are_no_defaults(write):
    path = write(
        "[training]\nepochs = 3\n[draem.data]\nimage_size = [64, 32]\n"
        "[calibration]\nquantile = 0.99\n"
    )
    settings = HostSettings(TWO, path, ["draem:model.base_width=8"])
    assert settings.changed("autoencoder") == {"training.epochs": 3}
    assert settings.changed("draem") == {
        "training.epochs": 3,
        "data.image_size": [64, 32],
        "model.base_width": 8,
    }
    assert HostSettings(TWO).changed("draem") == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[trainign]\nepochs = 1", r"Unknown table \[trainign\] in .*c\.toml"),
        ("[dream.training]\nepochs = 1", r"The hosts are: autoencoder, "),
        ("draem = 3", r"Unknown table \[draem\]"),
        ("blocks = 3", "A variant of the block in .*c.toml is a table"),
        ("[blocks.on]\nloss = 'mae'", "Its name is not off, on"),
        ("[blocks.'a@b']\nloss = 'mae'", "has no @, "),
        ("[blocks.'../a']\nloss = 'mae'", "comma or slash"),
        ("[draem]\nepochs = 1", r"in \[draem\] of .*\[epochs\]"),
        ("[draem.trainign]\nepochs = 1", r"\[trainign\] in \[draem\]"),
        (
            "[draem.training]\nepoch = 1",
            r"Unknown key `training.epoch` in \[draem\] of .*c\.toml",
        ),
        ("[draem.training]\nepochs = 0", "Settings of draem.*at least 1"),
        ("[training]\nseed = 0", "training.seed` .* Leave it out, and use --s"),
        ("[draem.model]\nsspcab = 'both'", "Leave it out, and use --sspcab"),
        ("[data]\npath = 'x'", "Leave it out, and use --data"),
        ("[model]\nname = 'draem'", "Leave it out, and use --models"),
    ],
)
def test_errors_in_the_file_name_the_place(write, text, message):
    with pytest.raises(ConfigError, match=message):
        HostSettings(TWO, write(text))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("training.epochs", "has the form section.key=value"),
        ("training.epoch=3", "`training.epoch`"),
        ("draem:training.epoch=3", "`training.epoch`"),
        ("cutpaste:training.epochs=3", "'cutpaste', which is not compared"),
        ("training.seed=3", "use --seeds"),
        ("draem:model.sspcab=none", "use --sspcab"),
    ],
)
def test_errors_in_options_say_what_is_wrong(option, message):
    with pytest.raises(ConfigError, match=message):
        HostSettings(TWO, None, [option])
