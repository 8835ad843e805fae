from keras_sspcab.cli.models import NAMES
from keras_sspcab.hosts import available_applications
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


def test_help_texts_name_every_model(invoke):
    named = {kind: {*names} for kind, names in NAMES.items()}
    hosts = available_applications()
    kinds = dict(zip(named, ("image", "video", "objects"), strict=True))
    for title, kind in kinds.items():
        expected = {n for n, host in hosts.items() if host.kind == kind}
        # Tests register hosts of their own.
        assert named[title] <= expected
        assert not {
            n
            for n in expected - named[title]
            if hosts[n].__module__.startswith("keras_sspcab.")
        }
    assert NAMES["images"][0] == ModelConfig().name
    for command in ("train", "compare"):
        text = "".join(invoke(command, "--help").output.split())
        text = text.replace("│", "")
        assert all(n in text for names in NAMES.values() for n in names)


def test_settings_are_listed(invoke):
    text = invoke("settings", "mnad").stdout
    assert "Settings of mnad" in text
    for key in ("data.image_size", "model.num_items", "training.epochs"):
        assert key in text
    assert "Did you mean 'mnad'" in invoke("settings", "mnat", code=2).stderr
