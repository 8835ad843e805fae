"""Versions come and go while clients ask."""

import functools
import itertools
import shutil
import threading

import grpc
import numpy as np
import pytest
import tensorflow as tf

from keras_sspcab.export import Client
from tests.export.serving.models import (
    NAME,
    add_version,
    assert_same,
    direct,
    images,
    remove_version,
)
from tests.export.serving.served import (
    Gate,
    calling,
    code_of,
    http_call,
    in_threads,
    predict_request,
    serve,
    wait_until,
)

STATES = {20: "LOADING", 30: "AVAILABLE", 40: "UNLOADING", 50: "END"}


@pytest.fixture
def folder(tmp_path):
    """The folder of a model with version 1."""
    add_version(tmp_path / NAME, 1)
    return tmp_path / NAME


def states(caller):
    return {
        status.version: STATES.get(status.state, status.state)
        for status in caller.status().model_version_status
    }


def version_of(caller, batch):
    """Asks for a prediction; returns which version has answered rightly."""
    outputs, spec = caller.predict(predict_request(image=batch))
    version = spec.version.value
    assert_same(outputs, direct(version=version, image=batch))
    return version


def test_reload_under_load(folder):
    """Eight clients of both protocols; 2 comes, 1 is deleted."""
    batch = images(3)
    expected = {v: direct(version=v, image=batch) for v in (1, 2)}
    done = threading.Event()
    seen = [[] for _ in range(8)]

    def ask(client, log):
        while not done.is_set():
            scores = [p.score for p in client.predict(batch)]
            log += [
                version
                for version, outputs in expected.items()
                if np.allclose(scores, outputs["anomaly_score"], rtol=1e-3)
            ]

    def wait_for_answers(count):
        before = [len(log) for log in seen]
        wait_until(
            lambda: min(np.subtract([len(log) for log in seen], before)) > count
        )

    def change(caller):
        try:
            wait_for_answers(0)
            add_version(folder, 2, version=2)
            wait_until(lambda: states(caller).get(2) == "AVAILABLE")
            remove_version(folder, 1)
            wait_until(lambda: states(caller)[1] == "END")
            wait_for_answers(2)
        finally:
            done.set()

    with (
        serve(folder) as server,
        calling(server) as caller,
        Client(server.grpc_target, model=NAME, retries=0) as grpc_client,
        Client(server.rest_url, model=NAME, retries=0) as rest_client,
    ):
        clients = [grpc_client, rest_client] * 4
        results = in_threads(
            [
                lambda: change(caller),
                *(
                    functools.partial(ask, client, log)
                    for client, log in zip(clients, seen, strict=True)
                ),
            ]
        )
        assert results == [None] * 9
        for log in seen:
            # Each client saw the one version and then the other.
            assert [key for key, _ in itertools.groupby(log)] == [1, 2]


def test_the_old_version_finishes_what_it_has(folder, monkeypatch):
    batch = images(2)
    with serve(folder) as server, calling(server) as caller:
        gate = Gate(monkeypatch)

        def change():
            assert gate.entered.acquire(timeout=20)
            add_version(folder, 2, version=2)
            wait_until(lambda: states(caller).get(2) == "AVAILABLE")
            wait_until(lambda: states(caller)[1] == "UNLOADING")
            with pytest.raises(grpc.RpcError) as error:
                caller.predict(predict_request(version=1, image=batch))
            assert code_of(error) == "NOT_FOUND"
            gate.open()

        version, failure = in_threads(
            [lambda: version_of(caller, batch), change]
        )
        assert (version, failure) == (1, None)
        wait_until(lambda: states(caller)[1] == "END")
        assert version_of(caller, batch) == 2


def test_a_broken_version_is_reported_and_not_served(folder):
    with serve(folder) as server, calling(server) as caller:
        staged = folder / "2.part"
        shutil.copytree(folder / "1", staged)
        (staged / "saved_model.pb").write_bytes(b"rubbish")
        staged.rename(folder / "2")
        wait_until(lambda: states(caller).get(2) == "END")
        (status,) = caller.status(version=2).model_version_status
        assert status.status.error_code == 2
        assert status.status.error_message
        assert version_of(caller, images(1)) == 1
        assert http_call(server, "/readyz")[0] == 200
        # It is tried again once its files have changed.
        remove_version(folder, 2)
        add_version(folder, 2, version=2)
        wait_until(lambda: states(caller)[2] == "AVAILABLE")
        assert version_of(caller, images(1)) == 2


def test_a_version_whose_files_are_replaced_is_loaded_again(folder, caplog):
    """Exporting again after removing an export reuses its version number."""
    batch = images(2)
    with serve(folder) as server, calling(server) as caller:
        assert_same(
            caller.predict(predict_request(image=batch))[0], direct(image=batch)
        )
        remove_version(folder, 1)
        add_version(folder, 1, version=2)
        new = direct(version=2, image=batch)["anomaly_score"]

        def is_new():
            outputs, spec = caller.predict(predict_request(image=batch))
            assert spec.version.value == 1
            return np.allclose(outputs["anomaly_score"], new, rtol=1e-3)

        wait_until(is_new)
        # Files that cannot be loaded end nothing, and are told once.
        (folder / "1" / "saved_model.pb").write_bytes(b"rubbish")
        message = "cannot be loaded again, its former files are served on"
        wait_until(lambda: message in caplog.text)
        assert is_new()
        assert states(caller) == {1: "AVAILABLE"}
        assert caplog.text.count(message) == 1


def test_a_folder_that_disappears_ends_nothing(folder, caplog):
    with serve(folder) as server, calling(server) as caller:
        folder.rename(folder.parent / "elsewhere")
        wait_until(lambda: "Cannot look for new versions" in caplog.text)
        assert version_of(caller, images(1)) == 1
        (folder.parent / "elsewhere").rename(folder)
        add_version(folder, 2, version=2)
        wait_until(lambda: states(caller).get(2) == "AVAILABLE")
        # Said once, not at every look.
        assert caplog.text.count("Cannot look for new versions") == 1


def test_chosen_versions_are_served_side_by_side(folder):
    add_version(folder, 2, version=2)
    add_version(folder, 3)
    batch = images(1)
    labels = {"stable": 1, "canary": 2}
    with (
        serve(folder, versions=(1, 2), labels=labels) as server,
        calling(server) as caller,
    ):
        assert states(caller) == {1: "AVAILABLE", 2: "AVAILABLE"}
        assert version_of(caller, batch) == 2
        for label, version in labels.items():
            request = predict_request(image=batch)
            request.model_spec.version_label = label
            outputs, spec = caller.predict(request)
            assert spec.version.value == version
            assert_same(outputs, direct(version=version, image=batch))


def test_a_server_without_a_version_does_not_start(folder):
    with pytest.raises(ValueError, match="no such version"):
        serve(folder, versions=(7,)).start()
    (folder / "1" / "saved_model.pb").write_bytes(b"rubbish")
    with pytest.raises(ValueError, match=f"Cannot load {NAME} version 1: "):
        serve(folder).start()


@pytest.mark.parametrize("is_frozen", [True, False])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_not_served(
    folder, is_frozen, value, caplog
):
    """A ReLU can hide them, so that scores look plausible."""
    module = tf.Module()
    weights = np.array([1, value, 3], "float32")
    module.weights = tf.constant(weights) if is_frozen else tf.Variable(weights)

    @tf.function(input_signature=[tf.TensorSpec((None, 3), name="image")])
    def score(image):
        kept = tf.where(image > 0.5, image * module.weights, 0.0)
        return {"anomaly_score": tf.reduce_sum(kept, axis=1)}

    with serve(folder) as server, calling(server) as caller:
        staged = folder / "2.part"
        tf.saved_model.save(module, str(staged), {"serving_default": score})
        staged.rename(folder / "2")
        wait_until(lambda: "cannot be loaded" in caplog.text)
        (status,) = caller.status(version=2).model_version_status
        assert "are not finite" in status.status.error_message
        assert version_of(caller, images(1)) == 1
