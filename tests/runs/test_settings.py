import pytest

from keras_sspcab.hosts import available_applications
from keras_sspcab.runs import ConfigError, list_settings
from keras_sspcab.runs.parsing import load_config


def settings_of(model):
    return {setting.key: setting for setting in list_settings(model)}


@pytest.mark.parametrize("name", sorted(available_applications()))
def test_everything_that_is_listed_can_be_set(name):
    settings = settings_of(name)
    config = load_config(None, {"model.name": name}).to_dict()
    given = {key: setting.default for key, setting in settings.items()}
    assert load_config(None, given).to_dict()["data"] == config["data"]
    for key, setting in settings.items():
        assert setting.values, key
        assert setting.meaning, key
        assert "\n" not in setting.meaning


def test_defaults_are_those_of_the_model():
    settings = settings_of("draem")
    assert settings["training.epochs"].default == 100
    assert settings["model.base_width"].default == 16
    # Of the constructor alone.
    assert settings_of("mnad")["model.num_items"].default == 10
    assert settings_of(None)["data.image_size"].default == [320, 320]
    assert settings_of(None)["model.sspcab"].default == "none"


def test_values_are_in_words():
    settings = settings_of("mnad")
    for key, values in {
        "data.layout": "auto, mvtec, plain, products, ucsd, avenue, "
        "shanghaitech",
        "data.image_size": "an integer or [height, width]",
        "data.channels": "1, 3",
        "data.flip": "true or false",
        "data.validation_fraction": "a number, above 0, below 1",
        "training.seed": "an integer, at least 0, below 4294967296",
        "model.sspcab": 'a text or a list or "none"',
        "model.num_items": "an integer",
        "evaluation.update_memory": "true or false",
    }.items():
        assert settings[key].values == values, key


def test_sections_are_those_of_the_kind():
    sections = {
        kind: {key.split(".")[0] for key in settings_of(name)}
        for kind, name in (
            ("image", "padim"),
            ("video", "mnad"),
            ("objects", "hf2vad"),
        )
    }
    common = {"data", "model", "training", "calibration", "tracking"}
    assert sections["image"] == {*common, "evaluation", "inspection"}
    assert sections["video"] == {*common, "evaluation"}
    assert sections["objects"] == {*common, "evaluation", "objects"}
    of_images = {k for k in settings_of("padim") if k.startswith("evaluation")}
    assert of_images == {"evaluation.masks"}
    assert "evaluation.masks" not in settings_of("mnad")


def test_unknown_models_are_refused():
    with pytest.raises(ValueError, match="Did you mean 'padim'"):
        list_settings("padm")
    with pytest.raises(ConfigError, match="Did you mean 'mnad'"):
        load_config(None, {"model.name": "MNAD"})
