"""All clients give what the SavedModel gives, from any server.

conformance.py says how to try them on a real TensorFlow Serving.
"""

import asyncio
import time

import numpy as np
import pytest

from keras_sspcab.export import AsyncClient, ServingClientError
from tests.export.serving.conformance import HAS_REAL, KINDS, Tried, check
from tests.export.serving.models import encoded


@pytest.fixture(scope="module")
def embedded(server):
    return Tried.embedded(server)


@pytest.fixture(
    scope="module",
    params=["embedded", *(["TensorFlow Serving"] if HAS_REAL else [])],
)
def tried(request):
    if request.param == "embedded":
        return request.getfixturevalue("embedded")
    return Tried.real()


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def client(tried, kind):
    with tried.client(kind) as client:
        yield client


def files(images):
    return [encoded(image) for image in images]


def from_files(tried, contents):
    return tried.direct("serving_bytes", image_bytes=contents)


def test_metadata(client, tried):
    metadata = client.metadata()
    assert (metadata.name, metadata.version) == (tried.model, tried.version)
    assert set(metadata.signatures) >= {"serving_default", "serving_bytes"}
    floats = metadata.signatures["serving_default"]
    shape = (None, *tried.images(1).shape[1:])
    assert floats.inputs["image"].dtype == "float32"
    assert floats.inputs["image"].shape == shape
    assert {name: info.dtype for name, info in floats.outputs.items()} == {
        "anomaly_score": "float32",
        "anomaly_map": "float32",
        "is_anomalous": "bool",
    }
    encoded_input = metadata.signatures["serving_bytes"].inputs["image_bytes"]
    assert (encoded_input.dtype, encoded_input.shape) == ("string", (None,))


def test_batch(client, tried, kind):
    images = tried.images(3)
    predictions = client.predict(images)
    check(predictions, tried.direct(image=images))
    first = predictions[0]
    assert type(first.score) is float
    assert type(first.is_anomalous) is bool
    assert first.anomaly_map.dtype == np.float32
    assert first.outputs == {}
    expected = tried.version if kind == "grpc" else None
    assert first.model_version == expected


def test_files(client, tried, tmp_path):
    contents = files(tried.images(2))
    contents.append(encoded(tried.images(1, seed=1)[0], "JPEG"))
    paths = []
    for index, content in enumerate(contents):
        paths.append(tmp_path / str(index))
        paths[-1].write_bytes(content)
    expected = from_files(tried, contents)
    check(client.predict(contents), expected)
    check(client.predict(paths), expected)


def test_mixed_inputs_stay_in_order(client, tried, tmp_path):
    images = tried.images(5)
    contents = files(images)
    path = tmp_path / "image"
    path.write_bytes(contents[3])
    predictions = client.predict(
        [contents[0], images[1:3], path, {"image": images[4]}]
    )
    arrays = tried.direct(image=images)
    expected = {
        name: np.stack([encoded[0], *value[1:3], encoded[3], value[4]])
        for (name, value), encoded in zip(
            sorted(arrays.items()),
            (v for _, v in sorted(from_files(tried, contents).items())),
            strict=True,
        )
    }
    check(predictions, expected)


def test_many_images(tried, kind):
    images = tried.images(11)
    with tried.client(kind, max_batch_size=3) as client:
        check(client.predict(images), tried.direct(image=images))
        check(
            client.predict(iter(files(images))),
            from_files(tried, files(images)),
        )


def test_a_certain_version(tried, kind):
    images = tried.images(1)
    with tried.client(kind, version=tried.version) as client:
        (prediction,) = client.predict(images)
        assert prediction.model_version == tried.version
        (status,) = client.status()
        assert (status.version, status.state) == (tried.version, "AVAILABLE")
        assert client.wait_until_ready(timeout=20) == (status,)
    with tried.client(kind, version=987654321) as client:
        for call in (client.status, client.metadata):
            with pytest.raises(ServingClientError) as error:
                call()
            assert error.value.code == "NOT_FOUND"
            assert not error.value.retriable


def test_label(embedded, kind):
    images = embedded.images(1)
    with embedded.client(kind, label="stable") as client:
        check(client.predict(images), embedded.direct(image=images))
    with (
        embedded.client(kind, label="none") as client,
        pytest.raises(ServingClientError, match="label"),
    ):
        client.predict(images)


def test_unknown_model(tried, kind):
    with tried.client(kind, model="no-such-model") as client:
        with pytest.raises(ServingClientError) as error:
            client.predict(tried.images(1))
        assert error.value.code == "NOT_FOUND"
        start = time.monotonic()
        with pytest.raises(ServingClientError, match="no-such-model") as error:
            client.wait_until_ready(timeout=0.3)
        assert error.value.code == "DEADLINE_EXCEEDED"
        assert time.monotonic() - start < 2


def test_what_the_server_refuses(client):
    # A file as far as the client can see.
    with pytest.raises(ServingClientError) as error:
        client.predict(b"\x89PNG\r\n\x1a\n and nothing else")
    assert error.value.code == "INVALID_ARGUMENT"
    assert not error.value.retriable


def test_closed(tried, kind):
    with tried.client(kind) as client:
        client.status()
        client.close()
        with pytest.raises(ServingClientError, match="has been closed"):
            client.status()


def test_async_client(embedded, kind):
    images = embedded.images(12)
    target = {"grpc": embedded.grpc, "rest": embedded.rest}[kind]

    async def ask():
        async with AsyncClient(target, model=embedded.model) as client:
            assert client.protocol == kind
            (ready,) = await client.wait_until_ready(timeout=20)
            assert await client.status() == (ready,)
            assert (await client.metadata()).name == embedded.model
            results = await asyncio.gather(*map(client.predict, images))
            with pytest.raises(ServingClientError, match="INVALID_ARGUMENT"):
                await client.predict(np.zeros((1, 1)))
        with pytest.raises(ServingClientError, match="has been closed"):
            await client.status()
        return results

    results = asyncio.run(ask())
    check([result for (result,) in results], embedded.direct(image=images))
