"""The files beside the models, and whether they agree with each other."""

import itertools
import os
import re

import pytest
from tensorflow_serving.config import model_server_config_pb2

from keras_sspcab.export.serving.deployment import (
    batch_sizes,
    configured_batch_sizes,
    write_deployment,
)
from tests.export.serving.deployment_files import (
    GPU_IMAGE,
    MANIFESTS,
    BatchingParameters,
    MonitoringConfig,
    arguments,
    compose,
    docker_run,
    kserve,
    kubernetes,
    parse,
    pods,
)
from tests.export.serving.models import NAME, copy_repository, package


def serving_containers(directory):
    """The container that serves, by file."""
    return {file: pod["containers"][0] for file, pod in pods(directory).items()}


def test_batching_config(directory):
    config = parse(directory, "batching.config", BatchingParameters)
    # What TensorFlow Serving demands where it splits large requests.
    assert list(config.allowed_batch_sizes) == [1, 2, 4]
    assert config.enable_large_batch_splitting.value
    assert config.max_execution_batch_size.value == 4
    assert config.max_batch_size.value == 16
    assert config.batch_timeout_micros.value > 0
    assert config.num_batch_threads.value > 0
    assert config.max_enqueued_batches.value > 0


@pytest.mark.parametrize(
    ("largest", "sizes"), [(1, (1,)), (6, (1, 2, 4, 6)), (8, (1, 2, 4, 8))]
)
def test_batch_sizes(largest, sizes):
    assert batch_sizes(largest) == sizes


def test_all_files_serve_with_the_same_arguments(directory):
    first, *others = arguments(directory).values()
    assert len(others) == 3
    assert all(other == first for other in others)
    flags = dict(argument[2:].split("=", 1) for argument in first)
    (config,) = parse(
        directory, "models.config", model_server_config_pb2.ModelServerConfig
    ).model_config_list.config
    mount = config.base_path.removesuffix(f"/models/{NAME}")
    assert flags["model_config_file"] == f"{mount}/models.config"
    assert flags["batching_parameters_file"] == f"{mount}/batching.config"
    assert flags["monitoring_config_file"] == f"{mount}/monitoring.config"
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


def test_ports(directory):
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
    assert all(port["targetPort"] == port["name"] for port in service)
    # KServe sends to the only one.
    (port,) = containers["kserve.yaml"]["ports"]
    assert port["containerPort"] == 8501
    readme = (directory / "README.md").read_text()
    assert set(re.findall(r"http://localhost:(\d+)", readme)) == {"8501"}


def test_probes(directory):
    status = f"/v1/models/{NAME}"
    for serving in serving_containers(directory).values():
        for probe, path in {
            "startupProbe": f"{status}/metadata",
            "readinessProbe": f"{status}/metadata",
            "livenessProbe": status,
        }.items():
            assert serving[probe]["httpGet"]["path"] == path
            assert serving[probe]["httpGet"]["port"] in ("rest", 8501)
        startup = serving["startupProbe"]
        assert startup["periodSeconds"] * startup["failureThreshold"] >= 600


def test_metrics_are_scraped_where_they_are(directory):
    config = parse(directory, "monitoring.config", MonitoringConfig)
    assert config.prometheus_config.enable
    path = config.prometheus_config.path
    template = kubernetes(directory)["Deployment"]["spec"]["template"]
    annotations = template["metadata"]["annotations"]
    assert annotations["prometheus.io/path"] == path
    assert annotations["prometheus.io/port"] == "8501"
    assert f"localhost:8501{path}" in (directory / "README.md").read_text()


def test_kubernetes_scales_the_deployment(directory):
    documents = kubernetes(directory)
    assert set(documents) == {
        "Deployment",
        "Service",
        "HorizontalPodAutoscaler",
        "PodDisruptionBudget",
        "NetworkPolicy",
    }
    deployment = documents["Deployment"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert documents["Service"]["spec"]["selector"] == labels
    scaler = documents["HorizontalPodAutoscaler"]["spec"]
    assert scaler["scaleTargetRef"] == {
        "apiVersion": deployment["apiVersion"],
        "kind": "Deployment",
        "name": deployment["metadata"]["name"],
    }
    assert 1 <= scaler["minReplicas"] < scaler["maxReplicas"]
    # A number here would undo the autoscaler at every `kubectl apply`.
    assert "replicas" not in deployment["spec"]
    # The metric is a share of what is requested.
    (metric,) = scaler["metrics"]
    serving = serving_containers(directory)["kubernetes.yaml"]
    assert metric["resource"]["name"] in serving["resources"]["requests"]
    predictor = kserve(directory)
    assert 1 <= predictor["minReplicas"] < predictor["maxReplicas"]
    assert predictor["scaleMetric"] == "cpu"


def test_containers_have_few_rights(directory):
    for pod in pods(directory).values():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        for container in (*pod["initContainers"], *pod["containers"]):
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
    for service in compose(directory).values():
        user, group = map(int, service["user"].split(":"))
        assert user > 0 < group
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_containers_have_limits(directory):
    for pod in pods(directory).values():
        assert pod["terminationGracePeriodSeconds"] > 30
        for container in (*pod["initContainers"], *pod["containers"]):
            resources = container["resources"]
            assert set(resources["requests"]) == {"cpu", "memory"}
            assert resources["limits"]["memory"].endswith(("Mi", "Gi"))
        # Balancers learn that a pod ends before it does.
        (serving,) = pod["containers"]
        name, seconds = serving["lifecycle"]["preStop"]["exec"]["command"]
        assert name == "sleep"
        assert 0 < int(seconds) < pod["terminationGracePeriodSeconds"]
    for service in compose(directory).values():
        assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
        assert 0 < service["pids_limit"] <= 4096


@pytest.mark.parametrize("file", ["kubernetes.yaml", "kserve.yaml"])
def test_policies_are_for_the_pods(directory, file):
    """Few ports, no way out, and not all pods at once."""
    documents = kubernetes(directory, file)
    if file == "kubernetes.yaml":
        pod = documents["Deployment"]["spec"]["template"]
        labels = pod["metadata"]["labels"]
        ports = [port["name"] for port in pod["spec"]["containers"][0]["ports"]]
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
    assert all(
        set(peer) <= {"podSelector", "namespaceSelector"}
        for peer in rule["from"]
    )
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
    for pod in pods(tmp_path).values():
        for container in (*pod["initContainers"], *pod["containers"]):
            assert container["image"] == image
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
    result = package(repository.directory, image="serving:1")
    assert result.written == ["kserve.yaml"]
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
    file.unlink()
    assert package(repository.directory, max_batch_size=2).version == 3
    assert configured_batch_sizes(repository.directory) == (1, 2)
