"""The tables of the paper as comparisons."""

import contextlib
import types

import pytest

from keras_sspcab.compare import timing
from keras_sspcab.compare.grid import parse_blocks
from keras_sspcab.compare.paper import BUDGETS, PAPER_TABLES, read_paper_table
from keras_sspcab.compare.settings import HostSettings
from keras_sspcab.hosts import get_application
from keras_sspcab.runs.models import construct
from keras_sspcab.runs.parsing import arguments_of

TABLES = [(name, budget) for name in PAPER_TABLES for budget in BUDGETS]


def settings_of(table):
    return HostSettings(table.models, preset=table.preset)


@pytest.mark.parametrize(("name", "budget"), TABLES)
def test_settings_fit_all_hosts_and_blocks(name, budget):
    table = read_paper_table(name, budget)
    assert parse_blocks(",".join(table.blocks)) == table.blocks
    settings = settings_of(table)
    for model in table.models:
        for block in table.blocks:
            config = settings.config(model, "", block, 3)
            assert (config.model.name, config.training.seed) == (model, 3)
    assert table.title == name.replace("table", "Table ")


def test_paper_has_the_widths_of_the_publications():
    def parameters(name, model):
        config = settings_of(read_paper_table(name, "paper")).config(
            model, "", "off", 0
        )
        host = construct(config, config.data.image_size)
        return sum(w.shape.num_elements() for w in host.trainable_weights)

    assert parameters("table2", "draem") == 97_422_725
    # 7,704,195 of the generator, and the discriminator.
    assert parameters("table3", "future_frame") == 14_535_684
    assert parameters("table1", "object_autoencoder") == 30_689
    # That of reconstruction, whose figures the paper has.
    assert parameters("table3", "mnad") == 17_195_267


@pytest.mark.parametrize("name", ["table2", "table3"])
def test_paper_measures_as_published(name):
    table = read_paper_table(name, "paper")
    settings = settings_of(table)
    for model in table.models:
        host = get_application(model)
        sections = settings.config(model, "", "off", 0).to_dict()
        defaults = {k: p.default for k, p in arguments_of(host).items()}
        sections["model"] = defaults | sections["model"]
        published = host.published_evaluation
        for name, value in published.settings.items() if published else ():
            section, key = name.split(".")
            assert sections[section].get(key) == value, (model, name)


def test_what_is_missing_of_the_data():
    table = read_paper_table("table3", "cpu")

    def missing(*classes):
        grid = types.SimpleNamespace(classes=classes)
        return table.missing(types.SimpleNamespace(grid=grid, changed={}))

    (line,) = missing("avenue")
    assert "is of ShanghaiTech Campus, which is not there" in line
    assert "takes its place" not in line
    lines = missing("street")
    assert len(lines) == 2
    assert all("street takes its place" in line for line in lines)


def test_both_models_are_made_where_they_are_timed(monkeypatch):
    """Weights that lie on another device would be copied in each call."""
    devices = [types.SimpleNamespace(device_type=t) for t in ("CPU", "GPU")]
    inside, made = [], []

    @contextlib.contextmanager
    def device(name):
        inside.append(name)
        yield
        inside.pop()

    monkeypatch.setattr(timing, "cases", lambda _: {"host": make})
    monkeypatch.setattr(timing, "time_pair", lambda *_: [(1.0, 1.0)] * 3)
    monkeypatch.setattr(timing.tf, "device", device)
    monkeypatch.setattr(
        timing.tf.config, "list_logical_devices", lambda: devices
    )

    def make(block):
        made.append((block, *inside))

    assert [one.device for one in timing.measure("cpu")] == ["CPU", "GPU"]
    assert made == [
        (block, f"/{name}:0")
        for name in ("CPU", "GPU")
        for block in ("off", "on")
    ]


def blocks_of(name):
    """The blocks of a table, as the host has them."""
    table = read_paper_table(name, "cpu")
    settings = settings_of(table)
    found = {}
    for block in table.blocks:
        config = settings.config(table.models[0], "", block, 0)
        host = construct(config, config.data.image_size)
        network = host.get_layer("autoencoder")
        found[block] = [
            layer for layer in network.layers if "sspcab" in layer.name
        ]
    return found


def test_blocks_of_table_1():
    found = blocks_of("table1")
    assert found.pop("off") == []
    rows = {}
    for name, (block,) in found.items():
        assert block.name == "sspcab_late"
        rows[name] = (
            block.loss,
            block.dilation_rate,
            block.kernel_size,
            block.reduction_ratio if block.attention != "spatial" else None,
            block.attention,
        )
    assert len(set(rows.values())) == len(rows) == 17
    assert rows["mae_d2"] == ("mae", 2, 1, 8, None)
    assert rows["mse_d0_k3"] == ("mse", 0, 3, 8, None)
    assert rows["ca_r8"] == ("mse", 1, 1, 8, "channel")
    assert rows["ca_r4"][3] == 4
    assert rows["ca_sa"][4] == "channel_spatial"


def test_blocks_of_tables_4_and_5():
    places = {
        name: sorted(block.name.removeprefix("sspcab_") for block in blocks)
        for name, blocks in blocks_of("table4").items()
    }
    assert places.pop("off") == []
    assert len(places) == 7
    assert all(sorted(n.split("+")) == found for n, found in places.items())
    masks = {
        name: [block.mask_size for block in blocks]
        for name, blocks in blocks_of("table5").items()
    }
    assert masks == {"off": [], "mask_1x1": [1], "mask_3x3": [3]}


def test_published_numbers():
    table = read_paper_table("table1", "paper")
    key = ("object_autoencoder", "rbdc", "Avenue")
    texts = table.published.texts(*key)
    assert tuple(texts) == table.published.blocks == table.blocks
    assert (texts["off"], texts["ca_sa"]) == ("49.98", "53.98")
    # Rows that are the same in several tables have the same numbers.
    for name, block in (("table4", "late"), ("table5", "mask_1x1")):
        other = read_paper_table(name, "paper").published.texts(*key)
        assert (other["off"], other[block]) == (texts["off"], texts["ca_r8"])
