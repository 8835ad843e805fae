import pytest

from keras_sspcab.data import parallel
from keras_sspcab.data.parallel import parallel_map


def test_order_and_errors():
    assert parallel_map(str, range(100)) == [*map(str, range(100))]
    with pytest.raises(ZeroDivisionError):
        parallel_map(lambda n: 1 // (n - 50), range(100))


def test_lines_tell_how_far_it_is_where_there_is_no_terminal(
    capsys, monkeypatch
):
    monkeypatch.setattr(parallel, "_PAUSE", 0.0)
    parallel_map(str, range(3), "Checking images")
    assert "Checking images: 2 of 3" in capsys.readouterr().err
    parallel_map(str, range(3))
    assert capsys.readouterr().err == ""
