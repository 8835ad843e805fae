"""Clients on models of all kinds: open sizes, clips, several inputs."""

import numpy as np
import pytest

from keras_sspcab.export import Client, ServingClientError
from tests.export.serving.conformance import Tried, check
from tests.export.serving.packaged_hosts import (
    SIGNATURES,
    packaged,
    repository,
)
from tests.export.serving.served import encoded, serve


@pytest.fixture(scope="module")
def server():
    for kind in SIGNATURES:
        packaged(kind)
    with serve(repository()) as server:
        yield server


@pytest.fixture(params=["grpc", "rest"])
def ask(server, request):
    """A function that makes clients."""
    targets = {"grpc": server.grpc_target, "rest": server.rest_url}
    return lambda kind, **options: Client(
        targets[request.param], model=kind, **options
    )


def tried(server, kind):
    return Tried.embedded(server, kind, packaged(kind)[0])


def test_open_sizes(server, ask):
    rng = np.random.default_rng(0)
    sizes = [(24, 32), (16, 40), (24, 32)]
    images = [rng.random((*size, 3), "float32") for size in sizes]
    photo = encoded(rng.random((50, 60, 3)))
    with ask("open") as client:
        predictions = client.predict([*images[:2], photo, images[2]])
    maps = [prediction.anomaly_map.shape for prediction in predictions]
    assert maps == [(24, 32), (16, 40), (24, 32), (24, 32)]
    model = tried(server, "open")
    for prediction, image in zip(
        predictions[:2] + predictions[3:], images, strict=True
    ):
        check([prediction], model.direct(image=image[None]))
    check(predictions[2:3], model.direct("serving_bytes", image_bytes=[photo]))


def test_clips(server, ask):
    clips = packaged("video")[1]["clip"]
    expected = tried(server, "video").direct(clip=clips)
    with ask("video", max_batch_size=4) as client:
        check(client.predict(clips), expected)
        check(client.predict(list(clips)), expected)
        (one,) = client.predict(clips[0, ..., 0])
        assert one.score == pytest.approx(
            float(expected["anomaly_score"][0]), abs=1e-3
        )
        with pytest.raises(ServingClientError, match="takes arrays only"):
            client.predict(encoded(clips[0, 0]))


def test_several_inputs(server, ask):
    objects = packaged("objects")[1]
    expected = tried(server, "objects").direct(**objects)
    with ask("objects", max_batch_size=4) as client:
        predictions = client.predict(objects)
        check(predictions, expected)
        rows = [
            {name: part[i] for name, part in objects.items()} for i in range(6)
        ]
        check(client.predict(rows), expected)
        with pytest.raises(ServingClientError, match="must be a dict"):
            client.predict(objects["appearance"])
        with pytest.raises(ServingClientError, match="must have the inputs"):
            client.predict({"appearance": objects["appearance"]})


def test_other_outputs(tmp_path):
    from keras_sspcab.export import export_saved_model
    from tests.export.serving.packaged import IMAGES, tiny_detector

    for name, outputs in {
        "more": ["anomaly_score", "is_anomalous", "raw_score"],
        "none": ["reconstruction"],
    }.items():
        export_saved_model(
            tiny_detector(), tmp_path / name, images=IMAGES, outputs=outputs
        )
    with serve(tmp_path) as server:
        model = Tried.embedded(server, "more", tmp_path / "more" / "1")
        expected = model.direct(image=IMAGES)
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
