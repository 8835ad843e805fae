"""Models of all kinds: encoded images, open sizes, clips, several inputs."""

import contextlib

import numpy as np
import pytest

from keras_sspcab.export import Client, ServingClientError, export_saved_model
from tests.export.serving.conformance import KINDS, check
from tests.export.serving.models import (
    IMAGES,
    SIGNATURES,
    encoded,
    packaged,
    repository_of_kinds,
    run_directly,
    tiny_detector,
)
from tests.export.serving.served import serve
from tests.export.serving_loader import ServedModel


@pytest.mark.parametrize("kind", SIGNATURES)
def test_the_loader_of_tensorflow_serving_agrees_with_python(kind):
    """TensorFlow Serving loads versions by TensorFlow's C API."""
    path, inputs = packaged(kind)
    with contextlib.closing(ServedModel(path)) as served:
        # TensorFlow adds one that initializes what there is to initialize.
        names = {name for name in served.signatures if name[:2] != "__"}
        known = SIGNATURES[kind]
        if kind != "objects":  # which is not calibrated
            known = {*known, *(f"{name}_options" for name in known)}
        assert names == known
        for name in names:
            rows = {key: part[:3] for key, part in inputs.items()}
            if name.startswith("serving_bytes"):
                files = [encoded(image) for image in rows["image"]]
                rows = {"image_bytes": np.array(files, object)}
            if name.endswith("_options"):
                left_out = np.full(3, np.nan, "float32")
                rows |= {"threshold": left_out, "sensitivity": left_out}
            outputs = served.run(name, rows)
            expected = run_directly(path, name, **rows)
            assert set(outputs) == set(expected)
            for key, value in outputs.items():
                assert value.dtype == expected[key].dtype
                np.testing.assert_allclose(
                    value, expected[key], rtol=1e-5, atol=1e-5, err_msg=key
                )
            assert np.isfinite(outputs["anomaly_score"]).all()
            assert outputs["anomaly_map"].any()


@pytest.fixture(scope="module")
def server():
    with serve(repository_of_kinds()) as server:
        yield server


@pytest.fixture(params=KINDS)
def ask(server, request):
    """A function that makes clients."""
    targets = {"grpc": server.grpc_target, "rest": server.rest_url}
    return lambda kind, **options: Client(
        targets[request.param], model=kind, **options
    )


def test_open_sizes(ask):
    rng = np.random.default_rng(0)
    sizes = [(24, 32), (16, 40), (24, 32)]
    images = [rng.random((*size, 3), "float32") for size in sizes]
    photo = encoded(rng.random((50, 60, 3)))
    with ask("open") as client:
        predictions = client.predict([*images[:2], photo, images[2]])
    maps = [prediction.anomaly_map.shape for prediction in predictions]
    assert maps == [(24, 32), (16, 40), (24, 32), (24, 32)]
    path, _ = packaged("open")
    expected = run_directly(path, "serving_bytes", image_bytes=[photo])
    check([predictions.pop(2)], expected)
    for prediction, image in zip(predictions, images, strict=True):
        check([prediction], run_directly(path, image=image[None]))


def test_clips(ask):
    path, inputs = packaged("video")
    clips, expected = inputs["clip"], run_directly(path, **inputs)
    with ask("video", max_batch_size=4) as client:
        check(client.predict(clips), expected)
        check(client.predict(list(clips[..., 0])), expected)
        with pytest.raises(ServingClientError, match="takes arrays only"):
            client.predict(encoded(clips[0, 0]))


def test_several_inputs(ask):
    path, objects = packaged("objects")
    expected = run_directly(path, **objects)
    with ask("objects", max_batch_size=4) as client:
        check(client.predict(objects), expected)
        rows = [
            {name: part[i] for name, part in objects.items()} for i in range(6)
        ]
        check(client.predict(rows), expected)


def test_other_outputs(tmp_path):
    for name, outputs in {
        "more": ["anomaly_score", "is_anomalous", "raw_score"],
        "none": ["reconstruction"],
    }.items():
        export_saved_model(
            tiny_detector(), tmp_path / name, images=IMAGES, outputs=outputs
        )
    expected = run_directly(tmp_path / "more" / "1", image=IMAGES)
    with serve(tmp_path) as server:
        for target in (server.grpc_target, server.rest_url):
            with Client(target, model="more") as client:
                predictions = client.predict(IMAGES)
            raw = [
                prediction.outputs["raw_score"] for prediction in predictions
            ]
            np.testing.assert_allclose(raw, expected["raw_score"], rtol=1e-4)
            assert predictions[0].anomaly_map is None
            with (
                Client(target, model="none") as client,
                pytest.raises(ServingClientError, match="Outputs: reconst"),
            ):
                client.predict(IMAGES)
