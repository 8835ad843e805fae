"""Reads the files beside the models, as those do who use them."""

import re
import shlex

import yaml
from google.protobuf import text_format

MANIFESTS = ("docker-compose.yml", "kubernetes.yaml", "kserve.yaml")


def parse(directory, file, message):
    return text_format.Parse((directory / file).read_text(), message())


def documents(directory, file):
    return list(yaml.safe_load_all((directory / file).read_text()))


def compose(directory):
    (document,) = documents(directory, "docker-compose.yml")
    return document["services"]


def kubernetes(directory):
    return {
        document["kind"]: document
        for document in documents(directory, "kubernetes.yaml")
    }


def kserve(directory):
    (document,) = documents(directory, "kserve.yaml")
    return document["spec"]["predictor"]


def pods(directory):
    """Specs of pods, and the container that serves, by file."""
    deployment = kubernetes(directory)["Deployment"]
    found = {
        "kubernetes.yaml": deployment["spec"]["template"]["spec"],
        "kserve.yaml": kserve(directory),
    }
    for pod in found.values():
        assert len(pod["containers"]) == 1
    return found


def arguments(directory):
    found = {"docker-compose.yml": compose(directory)["serving"]["command"]}
    for file, pod in pods(directory).items():
        found[file] = pod["containers"][0]["args"]
    command = docker_run(directory)
    start = command.index("tensorflow/serving:latest-gpu") + 1
    found["README.md"] = command[start:]
    return found


def blocks(directory):
    text = (directory / "README.md").read_text()
    return re.findall(r"```sh\n(.*?)```", text, re.DOTALL)


def docker_run(directory):
    (block,) = (b for b in blocks(directory) if b.startswith("docker run"))
    return shlex.split(block.replace("\\\n", " "))
