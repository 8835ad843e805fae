import json
import os

import numpy as np
import onnx
import onnxruntime
import pytest

from keras_sspcab.export import ExportMismatchError, export_onnx
from keras_sspcab.export import onnx as onnx_module
from tests.export.conftest import SIZE

OUTPUTS = {"anomaly_score", "anomaly_map", "is_anomalous"}


def run(path, images, name="image"):
    session = onnxruntime.InferenceSession(
        str(path), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {name: images}), strict=True))


def check(results, expected):
    for name, value in results.items():
        assert value.shape == expected[name].shape
        assert value.dtype == expected[name].dtype
        np.testing.assert_allclose(
            value, expected[name], rtol=1e-4, atol=1e-3, err_msg=name
        )


def test_file(onnx_file, detector):
    proto = onnx.load(onnx_file.path)
    onnx.checker.check_model(proto, full_check=True)
    assert proto.opset_import[0].version == 17
    image, *options = proto.graph.input
    # Defaults make them optional.
    names = [value.name for value in options]
    assert names == ["threshold", "sensitivity"]
    assert set(names) <= {value.name for value in proto.graph.initializer}
    axes = image.type.tensor_type.shape.dim
    assert image.name == "image"
    assert axes[0].dim_param == "batch"
    assert [axis.dim_value for axis in axes[1:]] == [SIZE, SIZE, 1]
    assert {output.name for output in proto.graph.output} == OUTPUTS
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    assert metadata["value_range"] == "[0, 1]"
    calibration = json.loads(metadata["calibration"])
    assert calibration == detector.calibration.summary()
    folder = onnx_file.path.parent
    names = ["bricks.onnx", "bricks.onnx.parity.json"]
    assert sorted(os.listdir(folder)) == names
    report = json.loads((folder / names[1]).read_text())
    assert (report["format"], report["opset"]) == ("onnx", 17)
    assert report["image_size"] == [SIZE, SIZE]
    assert report["parity"] == onnx_file.parity.to_dict()
    assert onnx_file.parity.passes


def test_results(onnx_file, detector, textures):
    images = textures["test"][:3]
    results = run(onnx_file.path, images)
    assert set(results) == OUTPUTS
    check(results, detector.predict(images, verbose=0))


@pytest.mark.parametrize("opset", [13, 18])
def test_other_opsets(detector, textures, tmp_path, opset):
    path = tmp_path / "model.onnx"
    export_onnx(detector, path, opset=opset, images=textures["test"][:2])
    assert onnx.load(path).opset_import[0].version == opset


@pytest.mark.parametrize("opset", [12, 19])
def test_unknown_opsets(detector, tmp_path, opset):
    with pytest.raises(ValueError, match="must lie in 13 to 18"):
        export_onnx(detector, tmp_path / "m.onnx", opset=opset, check=False)


def test_models_of_any_size(make_detector, textures, tmp_path):
    model = make_detector(
        size=None, sspcab="late", sspcab_options={"kernel_size": 2}
    )
    path = tmp_path / "model.onnx"
    export_onnx(model, path, images=textures["test"][:4])
    image, *_ = onnx.load(path).graph.input
    report = json.loads((tmp_path / "model.onnx.parity.json").read_text())
    assert report["image_size"] is None
    names = [axis.dim_param for axis in image.type.tensor_type.shape.dim]
    assert names == ["batch", "height", "width", ""]
    wide = np.concatenate([textures["test"][:3]] * 2, axis=2)[:, :27]
    check(run(path, wide), model.predict(wide, verbose=0))


def test_image_size_fixes_open_sizes(sizeless_detector, textures, tmp_path):
    path = tmp_path / "model.onnx"
    export_onnx(
        sizeless_detector,
        path,
        images=textures["test"][:, :24],
        image_size=(24, SIZE),
    )
    image, *_ = onnx.load(path).graph.input
    sizes = [axis.dim_value for axis in image.type.tensor_type.shape.dim]
    assert sizes == [0, 24, SIZE, 1]


def test_plain_models(plain_model, textures, tmp_path):
    path = tmp_path / "model.onnx"
    export_onnx(plain_model, path, images=textures["test"])
    images = textures["test"][:3]
    results = run(path, images, "photo")
    assert list(results) == ["drawing"]
    np.testing.assert_allclose(
        results["drawing"], plain_model.predict(images, verbose=0), atol=1e-5
    )
    assert not [e for e in onnx.load(path).metadata_props if "cal" in e.key]


def test_mismatch_keeps_what_was_there(detector, textures, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_text("an older one")
    with pytest.raises(ExportMismatchError, match="Nothing has been") as caught:
        export_onnx(detector, path, images=textures["test"], tolerance=1e-12)
    assert not caught.value.result.passes
    assert caught.value.result.outputs["anomaly_map"].max_difference > 0
    assert os.listdir(tmp_path) == ["model.onnx"]
    assert path.read_text() == "an older one"


def test_files_that_do_not_run_are_not_left(
    detector, textures, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        onnx_module,
        "_check_and_save",
        lambda proto, path: path.write_bytes(b""),
    )
    with pytest.raises(ValueError, match=r"exported m\.onnx does not run"):
        export_onnx(detector, tmp_path / "m.onnx", images=textures["test"])
    assert os.listdir(tmp_path) == []


def test_path(detector, tmp_path):
    with pytest.raises(ValueError, match=r"must end in \.onnx"):
        export_onnx(detector, tmp_path / "model", check=False)
