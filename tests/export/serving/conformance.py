"""Clients under one interface, and servers that they are tried on.

The embedded server always; a real TensorFlow Serving where it is named by
environment variables:

    TF_SERVING_TARGET       host:port of its gRPC
    TF_SERVING_REST_TARGET  http://host:port of its REST
    TF_SERVING_REPOSITORY   the repository that it has mounted, on this machine
    TF_SERVING_MODEL        name of the model in it; default: screws

To make such a repository, and to serve it (any other that
`keras-sspcab package` has made of gray or color images will do as well):

    python -m tests.export.serving.conformance /tmp/repository
    docker run --rm -p 127.0.0.1:8500:8500 -p 127.0.0.1:8501:8501 \\
        -v /tmp/repository:/repository:ro tensorflow/serving \\
        --model_config_file=/repository/models.config

Then

    TF_SERVING_TARGET=localhost:8500 \\
    TF_SERVING_REST_TARGET=http://localhost:8501 \\
    TF_SERVING_REPOSITORY=/tmp/repository \\
    python -m pytest tests/export/serving/test_client_conformance.py
"""

import dataclasses
import os
import pathlib
import sys

import numpy as np
import pytest

from keras_sspcab.export import Client
from keras_sspcab.export.serving.repository import Repository
from tests.export.serving.models import (
    NAME,
    assert_same,
    loaded,
    model_path,
    package,
    run_directly,
)

HAS_REAL = bool(
    os.environ.get("TF_SERVING_TARGET")
    or os.environ.get("TF_SERVING_REST_TARGET")
)

KINDS = ("grpc", "rest")


def make_client(kind, target, model=NAME, **options):
    return Client(target, model=model, protocol=kind, **options)


@dataclasses.dataclass(frozen=True)
class Tried:
    """A server, and the SavedModel it serves."""

    grpc: str | None
    rest: str | None
    model: str
    version: int
    path: pathlib.Path

    @classmethod
    def embedded(cls, server):
        path = model_path() / "1"
        return cls(server.grpc_target, server.rest_url, NAME, 1, path)

    @classmethod
    def real(cls):
        """TensorFlow Serving, as the environment says."""
        grpc = os.environ.get("TF_SERVING_TARGET")
        rest = os.environ.get("TF_SERVING_REST_TARGET")
        model = os.environ.get("TF_SERVING_MODEL", NAME)
        repository = Repository(os.environ["TF_SERVING_REPOSITORY"])
        version = repository.served(model)[-1]
        path = repository.path(model, version)
        return cls(grpc, rest, model, version, path)

    def client(self, kind, **options):
        target = {"grpc": self.grpc, "rest": self.rest}[kind]
        if target is None:
            pytest.skip("there is no target for this protocol")
        return make_client(kind, target, **{"model": self.model, **options})

    def direct(self, signature="serving_default", **inputs):
        """Outputs of the SavedModel, called without a server."""
        return run_directly(self.path, signature, **inputs)

    def images(self, count, seed=0):
        signature = loaded(self.path).signatures["serving_default"]
        (spec,) = signature.structured_input_signature[1].values()
        sizes = [32 if size is None else size for size in spec.shape[1:]]
        shape = (count, *sizes)
        return np.random.default_rng(seed).random(shape, dtype="float32")


def check(predictions, expected):
    """Compares predictions with outputs of a SavedModel."""
    assert_same(
        {
            "anomaly_score": [p.score for p in predictions],
            "is_anomalous": [p.is_anomalous for p in predictions],
            "anomaly_map": [p.anomaly_map for p in predictions],
        },
        expected,
    )


if __name__ == "__main__":
    package(sys.argv[1])
