import pytest

from keras_sspcab.layers import SSMCTBLayer, SSPCABLayer, block_layer


def test_a_block_is_an_sspcab_unless_it_is_said():
    layer = block_layer(None, name="a", loss_weight=0.2)
    assert type(layer) is SSPCABLayer
    assert (layer.name, layer.loss_weight) == ("a", 0.2)


def test_the_type_is_an_option():
    assert type(block_layer({"type": "ssmctb", "delta": 2})) is SSMCTBLayer


def test_options_are_stronger_than_defaults():
    options = {"type": "sspcab", "loss_weight": 0.5}
    layer = block_layer(options, loss_weight=0.2, dilation_rate=2)
    assert (layer.loss_weight, layer.dilation_rate) == (0.5, 2)
    assert options["type"] == "sspcab"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"type": "sspcap"}, "`type`.*sspcap.*Did you mean 'sspcab'"),
        ({"dilation": 1}, "Unrecognized keyword.*dilation"),
    ],
)
def test_what_a_block_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        block_layer(options)
