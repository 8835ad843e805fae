import sys

import pytest

from keras_sspcab.imports import import_optional, require_modules

PURPOSE = "Reading needs {}"


@pytest.mark.parametrize("module", ["no_such_thing", "no_such_thing.inside"])
def test_missing_modules_are_told_with_their_extra(module):
    with pytest.raises(ImportError, match="needs no_such_thing") as raised:
        import_optional(module, PURPOSE, "video")
    assert 'pip install "keras-sspcab[video]"' in str(raised.value)
    with pytest.raises(ImportError, match="needs no_such_thing"):
        require_modules(["json", "no_such_thing"], PURPOSE, "video")


def test_a_part_of_a_namespace_can_be_missing():
    with pytest.raises(ImportError, match="Install it with"):
        import_optional("json.no_such_thing", PURPOSE, "cli")


def test_nothing_is_imported_to_look_for_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "wave", raising=False)
    require_modules(["wave"], PURPOSE, "cli")
    assert "wave" not in sys.modules


def test_what_requires_a_second_tensorflow_is_installed_alone(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_serving", None)
    with pytest.raises(
        ImportError, match="pip install --no-deps tensorflow-serving-api$"
    ):
        require_modules(["tensorflow_serving"], PURPOSE, "serve")


def test_broken_modules_are_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "half_a_module.py").write_text("import math; math.no_such")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match="cannot be imported: .*no_such"):
        import_optional("half_a_module", PURPOSE, "cli")
