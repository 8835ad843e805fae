"""Times this package and its peers in PyTorch side by side.

Run: make bench-peers, or with torch and anomalib installed
    python -m benchmarks.peers [--only block draem] [--output results/peers]
The output is a path of .md and .csv, without its suffix.

- block: `SSPCABLayer` against the authors' block, as anomalib has it, and
  against the 3x3 convolutions of both frameworks that it replaces; maps of 4
  images. A training step gives the gradients of weights and input.
- draem: `DRAEM` at full width without blocks against anomalib's, images of
  256x256. Ours also smooths its map (21x21) before the maximum; losses differ
  in constants only. Anomalies are not simulated: that costs both the same.
- onnx: the same networks, exported by this package and by torch, in ONNX
  Runtime.
- padim, patchcore: on the same EfficientNet-Lite0, 256x256, 100 channels and
  512 patches. A fit is one to 10 images and to what a threshold needs: theirs
  scores the images that it was fitted to; ours fits and scores each fold by the
  others, so that it fits several times.

All weights are random: nothing is downloaded. The networks of DRAEM need 12 GB
of free memory. PyTorch runs eagerly, as anomalib does, TensorFlow as compiled
by Keras, both with all cores that they may use. On a machine that is not quiet,
PyTorch waits for its threads very long: `taskset -c 0` before the command gives
one core.
Each framework is a process of its own that waits for its turn. A ratio is the
median over rounds of this package's time in a round to the peer's in the same
round, below one where this package is faster; the range is that of the
quartiles.
"""

import csv
import dataclasses
import functools
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["TQDM_DISABLE"] = "1"

import numpy as np

from benchmarks.common import onnx_session, option_parser

# Channels and side of the block's maps.
MAPS = [(3, 64), (16, 64), (32, 64), (64, 64), (256, 64), (64, 16), (256, 16)]
BACKBONE = "tf_efficientnet_lite0"  # timm's name
NUM_IMAGES, MEMORY_SIZE = 10, 512

# === Inputs, the same for both ===


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape, "float32")


def draw_for_torch(*shape: int) -> Any:
    import torch

    return torch.from_numpy(np.moveaxis(draw(*shape), -1, 1).copy())


# === This package ===


def keras_layer(
    variant: str, channels: int, size: int, training: bool
) -> Callable[[], Any]:
    from benchmarks.layer import Case, make_functions, wait

    function = make_functions(variant, Case(channels, size))[training]
    return lambda: wait(function())


def keras_draem(batch: int, training: bool) -> Callable[[], Any]:
    from keras_sspcab.applications import DRAEM

    model = DRAEM(sspcab=None)
    images = draw(batch, 256, 256, 3)
    if not training:
        return lambda: model.predict_on_batch(images)
    masks = (draw(batch, 256, 256, 1) > 0.9).astype("float32")
    targets = {"reconstruction": images, "segmentation": masks}
    model.compile()
    return lambda: model.train_on_batch(images, targets)


def keras_onnx(batch: int) -> Callable[[], Any]:
    from keras_sspcab.applications import DRAEM
    from keras_sspcab.export import export_onnx

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "draem.onnx"
        export_onnx(
            DRAEM(sspcab=None), path, check=False, allow_uncalibrated=True
        )
        return onnx_runner(path, draw(batch, 256, 256, 3))


def keras_features(name: str, batch: int, fits: bool) -> Callable[[], Any]:
    from keras_sspcab.applications import PaDiM, PatchCore

    model = (
        PaDiM(weights=None)
        if name == "padim"
        else PatchCore(weights=None, memory_size=MEMORY_SIZE)
    )
    normal = draw(NUM_IMAGES, 256, 256, 3)
    if fits:
        return lambda: model.fit_scoring(normal)
    model.fit_scoring(normal)
    return lambda: model.predict_on_batch(normal[:batch])


# === Peers ===


def import_anomalib() -> Any:
    import torch

    warnings.simplefilter("ignore")
    try:
        import torchvision
    except RuntimeError:
        # Torch is for the CPU and torchvision for CUDA: none of its operations
        # is used here, but they must be known.
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor a, Tensor b, float c) -> Tensor")
        import torchvision

        torchvision.library = library  # as long as the process
    import anomalib.models

    return anomalib.models


def torch_layer(
    variant: str, channels: int, size: int, training: bool
) -> Callable[[], Any]:
    import torch

    import_anomalib()
    from anomalib.models.components.layers import SSPCAB

    block = (
        SSPCAB(channels)
        if variant == "block"
        else torch.nn.Sequential(
            torch.nn.Conv2d(channels, channels, 3, padding=1), torch.nn.ReLU()
        )
    )
    x = draw_for_torch(4, size, size, channels).requires_grad_(training)
    upstream = draw_for_torch(4, size, size, channels)
    inputs = [x, *block.parameters()]

    def train() -> None:
        outputs = block(x)
        loss = (outputs * upstream).sum()
        if variant == "block":
            loss = loss + 0.1 * torch.nn.functional.mse_loss(outputs, x)
        torch.autograd.grad(loss, inputs)

    return train if training else inference(block, x)


def inference(model: Any, *inputs: Any) -> Callable[[], Any]:
    import torch

    return torch.inference_mode()(functools.partial(model.eval(), *inputs))


def torch_draem(batch: int, training: bool) -> Callable[[], Any]:
    import torch

    import_anomalib()
    from anomalib.models.image.draem.loss import DraemLoss
    from anomalib.models.image.draem.torch_model import DraemModel

    model, loss = DraemModel(), DraemLoss()
    images = draw_for_torch(batch, 256, 256, 3)
    if not training:
        return inference(model, images)
    masks = (draw_for_torch(batch, 256, 256, 1) > 0.9).float()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

    def train() -> None:
        optimizer.zero_grad()
        reconstruction, prediction = model.train()(images)
        loss(images, reconstruction, masks, prediction).backward()
        optimizer.step()

    return train


def torch_onnx(batch: int) -> Callable[[], Any]:
    import torch

    import_anomalib()
    from anomalib.models.image.draem.torch_model import DraemModel

    images = draw_for_torch(batch, 256, 256, 3)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "draem.onnx"
        torch.onnx.export(DraemModel().eval(), (images,), path, verbose=False)
        return onnx_runner(path, images.numpy())


def onnx_runner(path: Path, images: np.ndarray) -> Callable[[], Any]:
    session = onnx_session(path, len(os.sched_getaffinity(0)))
    inputs = {session.get_inputs()[0].name: images}
    return lambda: session.run(None, inputs)


def torch_features(name: str, batch: int, fits: bool) -> Callable[[], Any]:
    import torch

    models = import_anomalib().image
    if name == "padim":
        model = models.padim.torch_model.PadimModel(
            BACKBONE, ["blocks.1", "blocks.2", "blocks.4"], False, 100
        )
    else:
        model = models.patchcore.torch_model.PatchcoreModel(
            ["blocks.2", "blocks.4"], BACKBONE, False
        )
    normal = draw_for_torch(NUM_IMAGES, 256, 256, 3)

    @torch.no_grad()
    def fit() -> None:
        model.train()
        model.feature_extractor.eval()
        model(normal)
        if name == "padim":
            model.fit()
        else:
            patches = NUM_IMAGES * 32 * 32
            model.subsample_embedding(MEMORY_SIZE / patches)
        model.eval()(normal)

    if fits:
        return fit
    fit()
    return inference(model, normal[:batch])


# === Comparisons ===

Side = tuple[Callable[..., Callable[[], Any]], tuple[Any, ...]]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """This package, `ours`, and each of its peers by name."""

    case: str
    what: str
    ours: Side
    peers: dict[str, Side]


def comparisons(only: list[str], batch: int) -> Iterator[Comparison]:
    if "block" in only:
        for (channels, size), training in [
            (case, training) for case in MAPS for training in (False, True)
        ]:
            case = channels, size, training
            yield Comparison(
                f"block, 4x{size}x{size}x{channels}",
                "training step" if training else "forward",
                (keras_layer, ("block", *case)),
                {
                    "authors' block": (torch_layer, ("block", *case)),
                    "3x3, Keras": (keras_layer, ("conv3x3", *case)),
                    "3x3, torch": (torch_layer, ("conv3x3", *case)),
                },
            )
    for name in [name for name in ("padim", "patchcore") if name in only]:
        for fits in (False, True):
            case = name, batch, fits
            yield Comparison(
                "PaDiM" if name == "padim" else "PatchCore",
                f"fit to {NUM_IMAGES} images" if fits else f"batch of {batch}",
                (keras_features, case),
                {"anomalib": (torch_features, case)},
            )
    if "onnx" in only:
        yield Comparison(
            "DRAEM in ONNX Runtime",
            "one image",
            (keras_onnx, (1,)),
            {"torch's export": (torch_onnx, (1,))},
        )
    if "draem" in only:
        for training in (False, True):
            case = 1, training
            yield Comparison(
                "DRAEM",
                f"{'training step' if training else 'inference'}, one image",
                (keras_draem, case),
                {"anomalib": (torch_draem, case)},
            )


class Framework:
    """A process that has one framework, and runs a side when it is its turn."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, end = context.Pipe()
        context.Process(target=_serve, args=(end,), daemon=True).start()
        end.close()

    def ask(self, *message: Any) -> Any:
        """Sends what to do; waits until it is done."""
        self._connection.send(message)
        return self._connection.recv()


def _serve(connection: Any) -> None:
    # What libraries print belongs to no table.
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    functions: dict[str, Callable[[], Any]] = {}
    while True:
        what, *arguments = connection.recv()
        answer = None
        if what == "forget":
            functions.clear()
        elif what == "prepare":
            name, make, values = arguments
            functions[name] = make(*values)
            _run(functions[name], 0.5)
        else:
            answer = _run(functions[arguments[0]], arguments[1])
        connection.send(answer)


def _run(function: Callable[[], Any], at_least: float) -> float:
    """Runs for some seconds, once at least; returns the median."""
    end = time.perf_counter() + at_least
    times: list[float] = []
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure(
    comparison: Comparison,
    frameworks: dict[str, Framework],
    rounds: int,
    seconds: float,
) -> list[dict[str, Any]]:
    """Returns a row for each peer."""
    sides = {"ours": comparison.ours, **comparison.peers}
    turns = {}
    for name, (make, values) in sides.items():
        turns[name] = frameworks[make.__name__.partition("_")[0]]
        turns[name].ask("prepare", name, make, values)
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, framework in turns.items():
            time.sleep(0.05)  # threads of the one before still spin
            times[name].append(framework.ask("run", name, seconds))
    for framework in frameworks.values():
        framework.ask("forget")
    rows = []
    for peer in comparison.peers:
        ratios = [
            ours / theirs
            for ours, theirs in zip(times["ours"], times[peer], strict=True)
        ]
        low, middle, high = statistics.quantiles(ratios, n=4)
        rows.append(
            {
                "case": comparison.case,
                "what": comparison.what,
                "peer": peer,
                "ours_ms": round(1e3 * statistics.median(times["ours"]), 3),
                "peer_ms": round(1e3 * statistics.median(times[peer]), 3),
                "ratio": round(middle, 3),
                "ratio_low": round(low, 3),
                "ratio_high": round(high, 3),
                "rounds": rounds,
            }
        )
    return rows


def machine() -> str:
    from importlib.metadata import version

    from keras_sspcab.compare.conditions import hardware

    packages = ("tensorflow-cpu", "keras", "torch", "anomalib", "onnxruntime")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return f"{hardware()}; {versions}"


def format_table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| what | | peer | here, ms | peer, ms | ratio | quartiles |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['case']} | {row['what']} | {row['peer']} "
            f"| {float(row['ours_ms']):.4g} | {float(row['peer_ms']):.4g} "
            f"| {float(row['ratio']):.2f} | {float(row['ratio_low']):.2f} to "
            f"{float(row['ratio_high']):.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    names = ["block", "padim", "patchcore", "onnx", "draem"]
    parser = option_parser(__doc__)
    parser.add_argument("--only", nargs="*", default=names, choices=names)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--batch", type=int, default=8)
    arguments = parser.parse_args()
    page = Path(f"{arguments.output}.md")
    if arguments.output and page.exists() and machine() not in page.read_text():
        parser.error(
            f"{page} is of another machine, or of other versions. Move it and "
            "its .csv, or choose another --output"
        )

    frameworks = {name: Framework() for name in ("keras", "torch")}
    rows: list[dict[str, Any]] = []
    for comparison in comparisons(arguments.only, arguments.batch):
        new = measure(
            comparison, frameworks, arguments.rounds, arguments.seconds
        )
        rows += new
        print(*new, sep="\n", flush=True)
        if arguments.output:  # so that a long run loses nothing
            write(rows, arguments.output)
    print(format_table(rows))


def write(new: list[dict[str, Any]], path: Path) -> None:
    """Writes both tables; what was not measured again stays in them."""
    from keras_sspcab.files import write_csv, write_text

    rows = {}
    if os.path.exists(f"{path}.csv"):
        with open(f"{path}.csv", newline="") as file:
            for row in csv.DictReader(file):
                rows[row["case"], row["what"], row["peer"]] = row
    for row in new:
        rows[row["case"], row["what"], row["peer"]] = row
    path.parent.mkdir(parents=True, exist_ok=True)
    write_csv(f"{path}.csv", list(new[0]), rows.values())
    write_text(
        f"{path}.md",
        f"# Against peers\n\n`make bench-peers`. {machine()}.\n\n"
        f"{format_table(list(rows.values()))}\n",
    )


if __name__ == "__main__":
    main()
