"""Files that configure how TensorFlow Serving serves a repository."""

import contextlib
import os
import pathlib
import re
from importlib import metadata
from typing import Any

import jinja2

from keras_sspcab.checks import standardize_int
from keras_sspcab.export.manifest import MANIFEST_NAME, make_readable
from keras_sspcab.export.serving.model_config import MODELS_CONFIG, MOUNT
from keras_sspcab.files import write_text

BATCHING_CONFIG = "batching.config"

#: Those that name the Docker image and the GPUs.
MANIFESTS = (
    "docker-compose.yml",
    "kubernetes.yaml",
    "kserve.yaml",
    "README.md",
)

# Each has a template.
_FILES = (BATCHING_CONFIG, "monitoring.config", "verify.sh", *MANIFESTS)

_TEMPLATES = pathlib.Path(__file__).parent / "templates"

# Arguments of TensorFlow Serving; the image adds the ports.
_ARGUMENTS = (
    f"--model_config_file={MOUNT}/{MODELS_CONFIG}",
    "--model_config_file_poll_wait_seconds=30",
    "--file_system_poll_wait_seconds=30",
    "--enable_batching=true",
    f"--batching_parameters_file={MOUNT}/{BATCHING_CONFIG}",
    f"--monitoring_config_file={MOUNT}/monitoring.config",
    "--rest_api_timeout_in_ms=30000",
)

# A request may hold this many batches; it is split.
_BATCHES_IN_REQUEST = 4


def batch_sizes(max_batch_size: int) -> tuple[int, ...]:
    """Returns the batch sizes that run: powers of two, and the largest."""
    sizes = [1]
    while sizes[-1] * 2 < max_batch_size:
        sizes.append(sizes[-1] * 2)
    return tuple(sorted({*sizes, max_batch_size}))


def configured_batch_sizes(directory: Any) -> tuple[int, ...] | None:
    """Returns the sizes that `batching.config` allows, or None without one."""
    file = pathlib.Path(directory) / BATCHING_CONFIG
    if not file.is_file():
        return None
    text = re.sub(r"#.*", "", file.read_text(encoding="utf-8"))
    sizes = re.findall(r"\ballowed_batch_sizes\s*:\s*(\d+)", text)
    if not sizes:
        raise ValueError(
            f"{os.fspath(file)} names no allowed_batch_sizes, which warm-up "
            "requests are made for. Add some, or remove the file to have it "
            "rewritten."
        )
    return tuple(map(int, sizes))


def _default_image(gpus: int) -> str:
    """Returns the image of the release that the installed protos are of."""
    for package in ("tensorflow-serving-api", "tensorflow-serving-api-gpu"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            tag = metadata.version(package) + ("-gpu" if gpus else "")
            return f"tensorflow/serving:{tag}"
    raise ValueError("Without `tensorflow-serving-api`, `image` must be given.")


def write_deployment(
    directory: Any,
    name: str,
    takes_files: bool,
    sizes: tuple[int, ...],
    gpus: int = 1,
    image: str | None = None,
) -> list[str]:
    """Writes the missing deployment files and returns their names.

    Existing files are kept, because they are meant to be edited. Probes and
    examples ask for the model `name`, by files if it has the signature
    `serving_bytes`. `sizes` are the batch sizes that run, increasing.
    """
    gpus = standardize_int(gpus, "gpus", minimum=0)
    image = image or _default_image(gpus)
    repository, colon, tag = image.rpartition(":")
    if not colon or "/" in tag or not re.fullmatch(r"[\w./:-]+", image):
        raise ValueError(
            "`image` must be a Docker image with its tag, such as "
            f"{_default_image(gpus)!r}. Received: image={image!r}"
        )
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.globals.update(
        app="keras-sspcab-serving",
        claim="keras-sspcab-models",
        mount=MOUNT,
        models_config=MODELS_CONFIG,
        manifest=MANIFEST_NAME,
        grpc_port=8500,
        rest_port=8501,
        name=name,
        takes_files=takes_files,
        sizes=sizes,
        max_request=sizes[-1] * _BATCHES_IN_REQUEST,
        gpus=gpus,
        image=image,
        image_repository=repository,
        image_tag=tag,
        arguments=_ARGUMENTS,
    )
    folder = pathlib.Path(directory)
    written = []
    for file in _FILES:
        if not (folder / file).exists():
            text = environment.get_template(f"{file}.j2").render()
            write_text(os.fspath(folder / file), text)
            make_readable(folder / file)
            written.append(file)
    return written
