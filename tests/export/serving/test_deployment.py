"""The files beside the models, and whether they agree with each other."""

import itertools
import os
import re

import pytest

from keras_sspcab.export.serving.deployment import (
    batch_sizes,
    configured_batch_sizes,
    write_deployment,
)
from tests.export.serving.deployment_files import (
    GPU_IMAGE,
    MANIFESTS,
    arguments,
    compose,
    containers,
    docker_run,
    kserve,
    kubernetes,
    parse_fields,
    pods,
)
from tests.export.serving.models import NAME, copy_repository, package


def serving_containers(directory):
    """The container that serves, by file."""
    return {file: pod["containers"][0] for file, pod in pods(directory).items()}


def test_batching_config(directory):
    fields = parse_fields((directory / "batching.config").read_text())
    # What TensorFlow Serving demands where it splits large requests.
    assert fields.pop("allowed_batch_sizes") == [1, 2, 4]
    values = {name: message["value"][0] for name, (message,) in fields.items()}
    assert values.pop("enable_large_batch_splitting") is True
    assert values.pop("max_execution_batch_size") == 4
    assert values.pop("max_batch_size") == 16
    assert set(values) == {
        "batch_timeout_micros",
        "num_batch_threads",
        "max_enqueued_batches",
    }
    assert min(values.values()) > 0
    assert batch_sizes(6) == (1, 2, 4, 6)


def test_all_files_serve_with_the_same_arguments(directory):
    first, *others = arguments(directory).values()
    assert len(others) == 3
    assert all(other == first for other in others)
    flags = dict(argument[2:].split("=", 1) for argument in first)
    for flag, file in {
        "model_config_file": "models.config",
        "batching_parameters_file": "batching.config",
        "monitoring_config_file": "monitoring.config",
    }.items():
        assert flags[flag] == f"/repository/{file}"
        assert (directory / file).is_file()
    assert flags["enable_batching"] == "true"
    # Without these a server would see neither a rollback nor a new version.
    assert int(flags["model_config_file_poll_wait_seconds"]) > 0
    assert int(flags["file_system_poll_wait_seconds"]) > 0


def test_the_repository_is_mounted_read_only(directory):
    for service in compose(directory).values():
        assert service["volumes"] == [".:/repository:ro"]
        assert service["read_only"] is True
    command = docker_run(directory)
    assert command[command.index("-v") + 1] == "$PWD:/repository:ro"
    for pod in pods(directory).values():
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        claim = volumes["repository"]["persistentVolumeClaim"]
        assert claim == {"claimName": "keras-sspcab-models", "readOnly": True}
        assert "emptyDir" in volumes["tmp"]
        for container in (*pod["initContainers"], *pod["containers"]):
            mounts = {m["name"]: m for m in container["volumeMounts"]}
            assert set(mounts) <= set(volumes)
            assert mounts["repository"]["mountPath"] == "/repository"
            assert mounts["repository"]["readOnly"] is True
    assert "keras-sspcab-models" in (directory / "README.md").read_text()
    # What is written goes where it may be.
    serving = serving_containers(directory)["kserve.yaml"]
    (cache,) = (e for e in serving["env"] if e["name"] == "CUDA_CACHE_PATH")
    assert cache["value"].startswith("/tmp/")
    assert compose(directory)["serving"]["tmpfs"] == ["/tmp"]


def test_ports_and_probes(directory):
    published = ["127.0.0.1:8500:8500", "127.0.0.1:8501:8501"]
    assert compose(directory)["serving"]["ports"] == published
    pairs = itertools.pairwise(docker_run(directory))
    assert [value for flag, value in pairs if flag == "-p"] == published
    containers = serving_containers(directory)
    ports = {
        port["name"]: port["containerPort"]
        for port in containers["kubernetes.yaml"]["ports"]
    }
    assert ports == {"grpc": 8500, "rest": 8501}
    service = kubernetes(directory)["Service"]["spec"]["ports"]
    assert {port["name"]: port["port"] for port in service} == ports
    # KServe sends to the only one.
    (port,) = containers["kserve.yaml"]["ports"]
    assert port["containerPort"] == 8501
    status = f"/v1/models/{NAME}"
    for serving in containers.values():
        for probe, path in {
            "startupProbe": f"{status}/metadata",
            "readinessProbe": f"{status}/metadata",
            "livenessProbe": status,
        }.items():
            assert serving[probe]["httpGet"]["path"] == path
            assert serving[probe]["httpGet"]["port"] in ("rest", 8501)


def test_metrics_are_scraped_where_they_are(directory):
    fields = parse_fields((directory / "monitoring.config").read_text())
    (config,) = fields["prometheus_config"]
    assert config["enable"] == [True]
    (path,) = config["path"]
    template = kubernetes(directory)["Deployment"]["spec"]["template"]
    annotations = template["metadata"]["annotations"]
    assert annotations["prometheus.io/path"] == path
    assert annotations["prometheus.io/port"] == "8501"
    assert f"localhost:8501{path}" in (directory / "README.md").read_text()


def test_kubernetes_scales_the_deployment(directory):
    documents = kubernetes(directory)
    deployment = documents["Deployment"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert documents["Service"]["spec"]["selector"] == labels
    scaler = documents["HorizontalPodAutoscaler"]["spec"]
    target = scaler["scaleTargetRef"]
    assert target["kind"] == "Deployment"
    assert target["name"] == deployment["metadata"]["name"]
    for limits in (scaler, kserve(directory)):
        assert 1 <= limits["minReplicas"] < limits["maxReplicas"]
    # A number here would undo the autoscaler at every `kubectl apply`.
    assert "replicas" not in deployment["spec"]
    # The metric is a share of what is requested.
    (metric,) = scaler["metrics"]
    serving = serving_containers(directory)["kubernetes.yaml"]
    assert metric["resource"]["name"] in serving["resources"]["requests"]


def test_containers_have_few_rights_and_limits(directory):
    for container in containers(directory):
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        resources = container["resources"]
        assert set(resources["requests"]) == {"cpu", "memory"}
        assert resources["limits"]["memory"].endswith(("Mi", "Gi"))
    for pod in pods(directory).values():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        assert pod["terminationGracePeriodSeconds"] > 30
        # Balancers learn that a pod ends before it does.
        (serving,) = pod["containers"]
        name, seconds = serving["lifecycle"]["preStop"]["exec"]["command"]
        assert name == "sleep"
        assert 0 < int(seconds) < pod["terminationGracePeriodSeconds"]
    for service in compose(directory).values():
        user, group = map(int, service["user"].split(":"))
        assert user > 0 < group
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
        assert 0 < service["pids_limit"] <= 4096


@pytest.mark.parametrize("file", ["kubernetes.yaml", "kserve.yaml"])
def test_policies_are_for_the_pods(directory, file):
    """Few ports, no way out, and not all pods at once."""
    documents = kubernetes(directory, file)
    if file == "kubernetes.yaml":
        template = documents["Deployment"]["spec"]["template"]
        labels = template["metadata"]["labels"]
        ports = [8500, 8501]
    else:
        # KServe labels pods with the name of their service.
        name = documents["InferenceService"]["metadata"]["name"]
        labels = {"serving.kserve.io/inferenceservice": name}
        ports = [8501]
    policy = documents["NetworkPolicy"]["spec"]
    assert policy["podSelector"]["matchLabels"] == labels
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["egress"] == []
    (rule,) = policy["ingress"]
    assert [port["port"] for port in rule["ports"]] == ports
    # From pods alone.
    peers = {kind for peer in rule["from"] for kind in peer}
    assert peers <= {"podSelector", "namespaceSelector"}
    budget = documents["PodDisruptionBudget"]["spec"]
    assert budget["selector"]["matchLabels"] == labels
    assert budget["maxUnavailable"] == 1


def test_gpus(directory, tmp_path):
    resources = compose(directory)["serving"]["deploy"]["resources"]
    assert resources["reservations"]["devices"] == [
        {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    ]
    for serving in serving_containers(directory).values():
        assert int(serving["resources"]["limits"]["nvidia.com/gpu"]) == 1
        # A tag of one release, which does not move.
        assert re.fullmatch(r"tensorflow/serving:\d+\.\d+\.\d+-gpu", GPU_IMAGE)
        assert serving["image"] == GPU_IMAGE
    for service in compose(directory).values():
        tag = GPU_IMAGE.partition(":")[2]
        assert service["image"] == (
            f"tensorflow/serving:${{TF_SERVING_TAG:-{tag}}}"
        )

    write_deployment(tmp_path, NAME, True, (1, 2), gpus=0)
    text = "".join((tmp_path / file).read_text() for file in MANIFESTS)
    assert not re.search(r"nvidia\.com|driver|-gpu", text)
    assert "--gpus" not in (tmp_path / "README.md").read_text()
    assert "deploy" not in compose(tmp_path)["serving"]


def test_a_pinned_image(tmp_path):
    image = "registry.example:5000/team/serving:2.19.1-gpu"
    write_deployment(tmp_path, NAME, True, (1, 2), gpus=2, image=image)
    assert {c["image"] for c in containers(tmp_path)} == {image}
    assert compose(tmp_path)["serving"]["image"] == (
        "registry.example:5000/team/serving:${TF_SERVING_TAG:-2.19.1-gpu}"
    )
    assert image in docker_run(tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        {"image": "tensorflow/serving"},
        {"image": "host:5000/serving"},
        {"image": "a b:c"},
        {"gpus": -1},
    ],
)
def test_images_and_gpus_are_checked(tmp_path, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        write_deployment(tmp_path, NAME, True, (1,), **options)
    assert os.listdir(tmp_path) == []


def test_edited_files_stay_and_removed_ones_come_back(directory, tmp_path):
    repository = copy_repository(directory, tmp_path / "repository")
    edited = repository.directory / "kubernetes.yaml"
    edited.write_text("# mine\n")
    (repository.directory / "kserve.yaml").unlink()
    sizes = configured_batch_sizes(repository.directory)
    written = write_deployment(
        repository.directory, NAME, True, sizes, image="serving:1"
    )
    assert written == ["kserve.yaml"]
    assert edited.read_text() == "# mine\n"
    (serving,) = kserve(repository.directory)["containers"]
    assert serving["image"] == "serving:1"


def test_batch_sizes_that_were_edited_are_used(directory, tmp_path):
    repository = copy_repository(directory, tmp_path / "repository")
    file = repository.directory / "batching.config"
    file.write_text(
        "# allowed_batch_sizes: 9\nallowed_batch_sizes: 3\n"
        "allowed_batch_sizes : 6  # the largest\n"
    )
    assert configured_batch_sizes(repository.directory) == (3, 6)
    with pytest.raises(ValueError, match="up to a size of 6"):
        package(repository.directory, max_batch_size=4)
    assert package(repository.directory, max_batch_size=6).version == 2
    file.write_text("max_batch_size { value: 6 }\n")
    with pytest.raises(ValueError, match="names no allowed_batch_sizes"):
        package(repository.directory)
