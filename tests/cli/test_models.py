import pytest

from keras_sspcab.applications import AnomalyModel, available_applications
from keras_sspcab.hosts import registry
from keras_sspcab.runs import ModelConfig


def row_of(name, text):
    (row,) = [line for line in text.splitlines() if f"│ {name} " in line]
    return [cell.strip() for cell in row.split("│")[1:-1]]


def test_every_host_is_listed(invoke):
    text = invoke("models").stdout
    for name, host in available_applications().items():
        cells = row_of(name, text)
        assert cells[1] == host.kind
        assert cells[-1] == ("needed" if host.guide.needs_gpu else "-")
    assert row_of(f"{ModelConfig().name} (default)", text)
    assert text.count("(default)") == 1


@pytest.mark.parametrize("name", sorted(available_applications()))
def test_facts_fit_into_the_table(name):
    guide = available_applications()[name].guide
    for fact in (guide.purpose, guide.training_time, guide.expectation):
        assert len(fact) <= 100
        assert not fact.endswith(".")


def test_host_without_a_guide_is_listed(invoke, monkeypatch):
    class Foreign(AnomalyModel):
        kind = "video"

    monkeypatch.setitem(registry.hosts, "foreign", Foreign)
    cells = row_of("foreign", invoke("models").stdout)
    assert cells == ["foreign", "video", "-", "-", "-", "-"]
