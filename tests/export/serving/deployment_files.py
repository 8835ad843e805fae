"""Reads the files beside the models, as those do who use them."""

import re
import shlex
from importlib import metadata

import yaml
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)

GPU_IMAGE = (
    f"tensorflow/serving:{metadata.version('tensorflow-serving-api')}-gpu"
)
MANIFESTS = ("docker-compose.yml", "kubernetes.yaml", "kserve.yaml")

_FIELD = descriptor_pb2.FieldDescriptorProto

# Messages that TensorFlow Serving's package for Python leaves out; they are
# declared in its session_bundle_config.proto and monitoring_config.proto. The
# text format knows fields by name and type; their numbers do not matter to it.
_MESSAGES = {
    "BatchingParameters": {
        "max_batch_size": ".google.protobuf.Int64Value",
        "batch_timeout_micros": ".google.protobuf.Int64Value",
        "max_enqueued_batches": ".google.protobuf.Int64Value",
        "num_batch_threads": ".google.protobuf.Int64Value",
        "thread_pool_name": ".google.protobuf.StringValue",
        "allowed_batch_sizes": "repeated int64",
        "pad_variable_length_inputs": "bool",
        "enable_large_batch_splitting": ".google.protobuf.BoolValue",
        "max_execution_batch_size": ".google.protobuf.Int64Value",
    },
    "PrometheusConfig": {"enable": "bool", "path": "string"},
    "MonitoringConfig": {
        "prometheus_config": ".tensorflow.serving.PrometheusConfig"
    },
}


def _declare():
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    file = descriptor_pb2.FileDescriptorProto(
        name="serving_configs.proto",
        package="tensorflow.serving",
        syntax="proto3",
        dependency=[wrappers_pb2.DESCRIPTOR.name],
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field, kind) in enumerate(fields.items(), start=1):
            repeated = kind.startswith("repeated ")
            label = _FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
            kind = kind.removeprefix("repeated ")
            added = message.field.add(name=field, number=number, label=label)
            if kind.startswith("."):
                added.type, added.type_name = _FIELD.TYPE_MESSAGE, kind
            else:
                added.type = _FIELD.Type.Value(f"TYPE_{kind.upper()}")
    pool.AddSerializedFile(file.SerializeToString())
    for name in ("BatchingParameters", "MonitoringConfig"):
        descriptor = pool.FindMessageTypeByName(f"tensorflow.serving.{name}")
        yield message_factory.GetMessageClass(descriptor)


BatchingParameters, MonitoringConfig = _declare()


def parse(directory, file, message):
    return text_format.Parse((directory / file).read_text(), message())


def documents(directory, file):
    return list(yaml.safe_load_all((directory / file).read_text()))


def compose(directory):
    (document,) = documents(directory, "docker-compose.yml")
    return document["services"]


def kubernetes(directory, file="kubernetes.yaml"):
    return {
        document["kind"]: document for document in documents(directory, file)
    }


def kserve(directory):
    service = kubernetes(directory, "kserve.yaml")["InferenceService"]
    return service["spec"]["predictor"]


def pods(directory):
    """Specs of pods, and the container that serves, by file."""
    deployment = kubernetes(directory)["Deployment"]
    specs = {
        "kubernetes.yaml": deployment["spec"]["template"]["spec"],
        "kserve.yaml": kserve(directory),
    }
    for pod in specs.values():
        assert len(pod["containers"]) == 1
    return specs


def arguments(directory):
    lists = {"docker-compose.yml": compose(directory)["serving"]["command"]}
    for file, pod in pods(directory).items():
        lists[file] = pod["containers"][0]["args"]
    command = docker_run(directory)
    start = command.index(GPU_IMAGE) + 1
    lists["README.md"] = command[start:]
    return lists


def blocks(directory):
    text = (directory / "README.md").read_text()
    return re.findall(r"```sh\n(.*?)```", text, re.DOTALL)


def docker_run(directory):
    (block,) = (b for b in blocks(directory) if b.startswith("docker run"))
    return shlex.split(block.replace("\\\n", " "))
