"""Errors name options, whatever the library calls them."""

from typing import Annotated

import pytest
import typer

from keras_sspcab.cli._console import name_options


def train(
    data: Annotated[str | None, typer.Option()] = None,
    image_size: Annotated[int | None, typer.Option()] = None,
    on_error: Annotated[str | None, typer.Option()] = None,
    settings: Annotated[list[str] | None, typer.Option("--set")] = None,
) -> None:
    pass


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            "`data.image_size` must be at least 1. Received: 0",
            "--image-size must be at least 1. Received: 0",
        ),
        ("`data.path` is not given", "--data is not given"),
        ("`data.flip` must be true", "--set data.flip must be true"),
        ("`model.smoothing` must", "--set model.smoothing must"),
        ("`data.flip` in c.toml must", "`data.flip` in c.toml must"),
        ("Unknown key `data.flp`.", "Unknown key `data.flp`."),
        (
            "The `on_error` argument must be one of ['raise']. "
            "Received: on_error='x'. Or on_error=\"skip\".",
            "--on-error must be one of ['raise']. Received: --on-error 'x'. "
            "Or --on-error skip.",
        ),
        ("Received: root='x'. Received: y=3", None),
        ('say layout="plain".', "say --set data.layout=plain."),
    ],
)
def test_options_stand_for_arguments(message, expected):
    given = {"image_size": 0, "data": None, "settings": ["data.flip=1"]}
    expected = expected or "Received: --data 'x'. Received: y=3"
    assert name_options(message, train, given) == expected


def test_settings_that_were_given_as_such_keep_their_names():
    text = name_options("`data.image_size` must", train, {"image_size": None})
    assert text == "--set data.image_size must"


def test_commands_without_settings_keep_their_names():
    def command(run: Annotated[str, typer.Argument()]) -> None:
        pass

    assert name_options("`data.flip` must", command, {}) == "`data.flip` must"
