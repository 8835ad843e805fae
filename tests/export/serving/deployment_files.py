"""Reads the files beside the models, as those do who use them."""

import json
import re
import shlex
from importlib import metadata

import yaml

GPU_IMAGE = (
    f"tensorflow/serving:{metadata.version('tensorflow-serving-api')}-gpu"
)
MANIFESTS = ("docker-compose.yml", "kubernetes.yaml", "kserve.yaml")

_FIELD = re.compile(r"(\w+)\s*(?:\{([^{}]*)\}|:\s*(\S+))")


def parse_fields(text):
    """The fields of a message in the text format; those of one name in order.

    TensorFlow Serving's package for Python leaves out the messages themselves.
    """
    text = re.sub(r"#.*", "", text)
    assert not _FIELD.sub("", text).strip()
    fields = {}
    for name, message, value in _FIELD.findall(text):
        value = parse_fields(message) if message else json.loads(value)
        fields.setdefault(name, []).append(value)
    return fields


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


def containers(directory):
    """All containers of pods; those that serve come last in their pods."""
    return [
        container
        for pod in pods(directory).values()
        for container in (*pod["initContainers"], *pod["containers"])
    ]


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
