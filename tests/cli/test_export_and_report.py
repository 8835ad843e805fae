import json
import re
import shutil
import webbrowser

import numpy as np
import pytest
from PIL import Image

from keras_sspcab.export import export_run
from keras_sspcab.runs import load_detector


def unfolded(table):
    """The text of a table whose last column runs over several lines."""
    return re.sub(r"[\s│]", "", table)


def test_export_writes_compared_artifacts(invoke, copy, images):
    result = invoke("export", copy, "--to=savedmodel", "--to=onnx")
    folder = copy / "export" / "savedmodel" / "autoencoder" / "1"
    onnx = copy / "export" / "onnx" / "autoencoder.onnx"
    for path in (folder, onnx):
        assert path.exists()
        assert path.name in unfolded(result.stdout)
    assert "Largest differences" in result.stdout

    from keras_sspcab.export import load_runner

    image = np.asarray(
        Image.open(images / "test" / "hole" / "000.png"), "float32"
    )[np.newaxis, ..., np.newaxis]
    expected = load_detector(str(copy)).predict(image / 255, verbose=0)
    for path in (folder, onnx):
        outputs = load_runner(path)(image=image / 255)
        np.testing.assert_allclose(
            outputs["anomaly_score"],
            expected["anomaly_score"],
            rtol=1e-3,
            atol=1e-3,
        )
    report = json.loads((folder / "parity.json").read_text())
    assert report["parity"]["num_images"] == 8


def test_export_tells_what_is_there_where_another_fails(
    invoke, copy, monkeypatch
):
    from keras_sspcab.export.runs import FORMATS

    def fail(*args, **options):
        raise ValueError("Nothing has been written.")

    monkeypatch.setitem(FORMATS, "onnx", FORMATS["onnx"]._replace(export=fail))
    result = invoke("export", copy, "--to=savedmodel", "--to=onnx", code=2)
    assert "autoencoder/1" in unfolded(result.stdout)


def test_export_to_integers(invoke, copy):
    invoke("export", copy, "--to=tflite", "--precision=int8")
    (path,) = (copy / "export" / "tflite").glob("*.tflite")
    report = json.loads((path.parent / f"{path.name}.parity.json").read_text())
    assert report["precision"] == "int8"


@pytest.mark.parametrize(
    ("format", "precision"), [("onnx", "float16"), ("savedmodel", "int8")]
)
def test_precisions_that_a_format_has_not_are_refused(copy, format, precision):
    message = f"must be one of.*'float32'.*precision={precision!r}"
    with pytest.raises(ValueError, match=message):
        export_run(copy, format, precision=precision)


def test_export_says_what_to_do_where_the_data_are_gone(
    invoke, copy, images, tmp_path
):
    config = copy / "config.toml"
    config.write_text(config.read_text().replace(str(images), "/gone"))
    result = invoke("export", copy, "--to=onnx", code=2)
    assert "/gone" in result.stderr
    assert "with --images" in result.stderr
    normal = images / "test" / "good"
    invoke("export", copy, "--to=onnx", f"--images={normal}")


def test_export_of_a_model_file_needs_images(invoke, trained, images, tmp_path):
    model = shutil.copy(trained / "model.keras", tmp_path)
    result = invoke("export", model, "--to=onnx", code=2)
    assert "Give a folder with --images" in result.stderr
    out = tmp_path / "out"
    invoke(
        "export",
        model,
        "--to=onnx",
        f"--images={images / 'train' / 'good'}",
        f"--out={out}",
    )
    assert (out / "onnx" / "autoencoder.onnx").exists()


def test_report_is_written_and_opened(invoke, evaluated, tmp_path, monkeypatch):
    evaluated = shutil.copytree(evaluated, tmp_path / "run")
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    result = invoke("report", evaluated, "--open")
    path = evaluated / "report.html"
    assert f"Wrote {path}" in result.stdout
    assert "<html" in path.read_text()
    assert opened == [path.as_uri()]


def test_report_needs_an_evaluation(invoke, trained):
    result = invoke("report", trained, code=2)
    assert "keras-sspcab evaluate" in result.stderr
