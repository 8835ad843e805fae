import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from keras_sspcab.cli.compare import spell
from keras_sspcab.compare import cell as cells
from keras_sspcab.hosts import registry
from keras_sspcab.runs import RunFolder
from tests.cli.cells import Stub, finish, read_csv, run_here
from tests.cli.program import command

CONFIG = """
[data]
image_size = 48
channels = 1
patch_size = 32
patches_per_image = 1
validation_fraction = 0.25
[training]
epochs = 1
[autoencoder.model]
filters = [4, 4, 2]
smoothing = 3
"""


@pytest.fixture(scope="module")
def arguments(images, tmp_path_factory):
    """The options of a comparison of the auto-encoder over two seeds."""
    config = tmp_path_factory.mktemp("config") / "c.toml"
    config.write_text(CONFIG)
    return [
        "compare",
        "--models=autoencoder",
        f"--data={images}",
        f"--config={config}",
        "--seeds=2",
        "--metric=pixel_ap",
        "--metric=image_auroc",
        "--ensemble",
    ]


@pytest.fixture(scope="module", autouse=True)
def _cells_cost_nothing():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "run_in_own_process", finish)
        patch.setitem(registry.hosts, "stub", Stub)
        yield


@pytest.fixture(scope="module")
def compared(arguments, invoke, tmp_path_factory) -> Path:
    """A comparison that is done; not to be changed."""
    out = tmp_path_factory.mktemp("compared") / "out"
    result = invoke(*arguments, f"--out={out}")
    (out / "output.txt").write_text(result.stdout)
    return out


@pytest.fixture
def copy(compared, tmp_path) -> Path:
    """A comparison that is done, to play with."""
    return Path(shutil.copytree(compared, tmp_path / "out"))


def cell(out, block, seed, model="autoencoder"):
    return out / "runs" / "brick" / f"{model}-{block}-seed{seed}"


# === A whole comparison ===


def test_every_cell_has_a_run_with_its_settings(compared, images):
    folders = [path.name for path in (compared / "runs/brick").iterdir()]
    assert len(folders) == 4
    for block, place in (("off", None), ("on", "late")):
        for seed in (0, 1):
            config = RunFolder(str(cell(compared, block, seed))).config
            assert config.training.seed == seed
            assert config.training.epochs == 1
            assert config.data.path == str(images)
            assert config.model.options["sspcab"] == place
            assert config.model.options["filters"] == [4, 4, 2]


def test_page_is_complete_and_names_no_folder(compared, images):
    text = (compared / "comparison.md").read_text()
    assert "| brick | 50.5 ± 0.7 → 50.5 ± 0.7 | 75.0 ± 0.0 → 80.0" in text
    assert "no interval: 2 seeds, at least 5 needed" in text
    assert "## Ensembles of 2 seeds" in text
    assert (
        "--data brick --config c.toml --metric pixel_ap --metric image_auroc "
        "--ensemble`" in text
    )
    assert "training.epochs=1" in text
    assert "Images of brick: 12 normal ones" in text
    assert "Missing" not in text
    assert str(images.parent) not in text
    assert str(compared.parent) not in text
    parameters = {
        row["block"]: int(row["parameters"])
        for row in read_csv(compared / "comparison.csv")
    }
    assert parameters["on"] < parameters["off"]


@pytest.mark.parametrize(
    ("setting", "shown"),
    [
        ("draem:model.texture_folder=/home/ann/dtd", "dtd"),
        ('draem:model.texture_folder="/home/ann/dtd"', "dtd"),
        (
            'objects.boxes=["/home/ann/a.onnx", "motion"]',
            "['a.onnx', 'motion']",
        ),
        ("data.flip=true", "true"),
    ],
)
def test_public_command_has_no_folders_of_settings(setting, shown):
    (*_, text) = shlex.split(spell("compare", {"--set": [setting]}, True))
    assert text == f"{setting.partition('=')[0]}={shown}"


def test_progress_names_cell_and_time(compared):
    text = (compared / "output.txt").read_text()
    assert "4 cells: 4 to do, in " in text
    assert "cell 1/4: brick, autoencoder without the block, seed 0\n" in text
    assert "cell 4/4: brick, autoencoder with the block, seed 1 (" in text
    assert " so far, about 62 s left" in text
    assert "no interval: 2 seeds, at least 5 needed" in text
    assert "comparison.md" in text.splitlines()[-1]


def test_cells_are_trained_evaluated_and_continued(
    arguments, invoke, tmp_path, monkeypatch
):
    monkeypatch.setattr(cells, "run_in_own_process", run_here)
    out = tmp_path / "out"
    options = [
        *arguments[:-1],
        *("--models=stub", "--seeds=1", f"--out={out}"),
    ]
    invoke(*options)
    first, second = rows = read_csv(out / "comparison.csv")
    assert (first["block"], second["block"]) == ("off", "on")
    for row in rows:
        run = RunFolder(str(cell(out, row["block"], 0, "stub")))
        assert run.is_finished
        assert run.record["seconds"].keys() == {"training", "evaluation"}
        metrics = json.loads(Path(run.file("metrics.json")).read_text())
        for name in ("image_auroc", "pixel_ap", "aupro", "num_test_images"):
            assert float(row[name]) == metrics[name]
    # To be evaluated, and to be resumed.
    trained, begun = cell(out, "off", 0, "stub"), cell(out, "on", 0, "stub")
    before = (trained / "model.keras").stat().st_mtime_ns
    (trained / "metrics.json").unlink()
    (begun / "model.keras").unlink()
    result = invoke(*options)
    assert "1 begun, 1 trained, to be evaluated" in result.stdout
    assert "epoch 1/1" not in result.stdout
    assert (trained / "model.keras").stat().st_mtime_ns == before
    assert read_csv(out / "comparison.csv")[1]["aupro"] == second["aupro"]


# === Continuing ===


def test_what_fails_is_named_and_the_others_are_run(
    copy, arguments, invoke, monkeypatch
):
    monkeypatch.setattr(cells, "run_in_own_process", run_here)
    broken = cell(copy, "off", 1)
    shutil.rmtree(broken)
    broken.mkdir()
    (broken / "thesis.tex").write_text("precious")
    result = invoke(*arguments, f"--out={copy}", code=1)
    assert "cell 2/4" not in result.stdout
    assert "cell 3/4" in result.stdout
    assert "autoencoder without the block, seed 1, has failed" in result.stderr
    assert (
        "Failed: brick, autoencoder without the block, seed 1. ValueError: "
        in result.stdout
    )
    assert "is not empty and holds no run" in result.stdout
    assert (broken / "thesis.tex").read_text() == "precious"
    assert len(read_csv(copy / "comparison.csv")) == 3
    text = (copy / "comparison.md").read_text()
    assert "Missing, 1 of 4 runs: brick, autoencoder without the block" in text
    assert "(1 of 2)" in text


def test_other_settings_are_refused_before_anything_is_run(
    copy, arguments, invoke
):
    shutil.rmtree(cell(copy, "off", 0))
    before = (copy / "comparison.md").read_text()
    options = [f"--out={copy}", "--set=autoencoder:model.smoothing=5"]
    result = invoke(*arguments, *options, code=2)
    assert "3 of 4 cells were run with other settings" in result.stderr
    assert "model.smoothing was 3 and is 5 now" in result.stderr
    assert not cell(copy, "off", 0).exists()
    assert (copy / "comparison.md").read_text() == before
    result = invoke(*arguments, *options, "--dry-run")
    assert "done, with other settings: model.smoothing" in result.stdout


def test_images_may_move_but_not_change(
    copy, arguments, invoke, images, tmp_path
):
    moved = tmp_path / "elsewhere" / "brick"
    shutil.copytree(images, moved)
    options = [f"--out={copy}", f"--data={moved}", "--dry-run"]
    assert "4 cells: 4 done" in invoke(*arguments, *options).stdout
    for name in ("000.png", "001.png", "002.png", "003.png"):
        (moved / "train" / "good" / name).unlink()
    result = invoke(*arguments, *options[:-1], code=2)
    assert "the training images was '9 images" in result.stderr


def test_changed_images_are_refused_where_they_lie(
    copy, arguments, invoke, images, tmp_path
):
    moved = tmp_path / "elsewhere" / "brick"
    shutil.copytree(images, moved)
    for path in copy.glob("runs/*/*/config.toml"):
        text = path.read_text().replace(str(images), str(moved))
        path.write_text(text)
    options = [f"--out={copy}", f"--data={moved}"]
    assert "4 done" in invoke(*arguments, *options, "--dry-run").stdout
    (moved / "test/good/000.png").unlink()
    result = invoke(*arguments, *options, code=2)
    assert "the number of test images was" in result.stderr


def test_more_hosts_join_a_comparison(copy, arguments, invoke):
    done = {p: p.stat().st_mtime_ns for p in copy.glob("runs/*/auto*/*")}
    result = invoke(
        *arguments[:-1],
        "--models=stub,autoencoder",
        f"--out={copy}",
        "--seeds=1,",
    )
    assert "4 cells: 2 to do, 2 done" in result.stdout
    rows = read_csv(copy / "comparison.csv")
    assert [(row["model"], row["block"], row["seed"]) for row in rows] == [
        ("stub", "off", "1"),
        ("stub", "on", "1"),
        ("autoencoder", "off", "1"),
        ("autoencoder", "on", "1"),
    ]
    assert done == {path: path.stat().st_mtime_ns for path in done}
    run = RunFolder(str(cell(copy, "on", 1, "stub")))
    assert "filters" not in run.config.model.options
    text = (copy / "comparison.md").read_text()
    assert "One seed, 1: no spread is known." in text
    assert "tables of before are replaced" not in result.stdout
    options = ("--models=stub", f"--out={copy}", "--seeds=1,")
    result = invoke(*arguments[:-1], *options)
    words = " ".join(result.stdout.split())
    assert "are replaced, and lose autoencoder: name these" in words


def test_interruption_says_how_to_go_on(
    copy, arguments, invoke, images, monkeypatch
):
    def interrupt(*_):
        raise cells.CellInterrupted(signal.SIGTERM)

    monkeypatch.setattr(cells, "run_in_own_process", interrupt)
    shutil.rmtree(cell(copy, "off", 1))
    result = invoke(
        *arguments,
        f"--out={copy}",
        "--set=training.epochs=1",
        code=128 + signal.SIGTERM,
    )
    assert "Stopped in cell 3/4: brick, autoencoder without" in result.stdout
    assert (
        "Continue with: keras-sspcab compare --models autoencoder --sspcab "
        f"off,on --seeds 2 --data {images} --out {copy} --config "
        in result.stdout
    )
    assert "--set training.epochs=1 --metric" in result.stdout


# === Errors, before anything is run ===


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--models=autoencoder,dream"], "There is no model named 'dream'"),
        (["--models=autoencoder,stub", "--sspcab=off,late"], "that all models"),
        (["--sspcab=none"], "--sspcab says 'off'"),
        (["--seeds=7,"], "--ensemble needs several seeds"),
        (["--metric=auroc"], "There is no metric named 'auroc'"),
        (["--data=missing"], "There is no folder of images"),
        (["--config=missing.toml"], "There is no configuration file at 'mis"),
        (["--set=training.seed=3"], "use --seeds"),
        (["--set=model.smoothing=4"], "must be odd"),
    ],
)
def test_errors_come_first(arguments, invoke, tmp_path, options, message):
    out = tmp_path / "out"
    result = invoke(*arguments, f"--out={out}", *options, code=2)
    assert message in result.stderr
    assert not out.exists()


def test_dry_run_lists_cells_and_writes_nothing(
    arguments, invoke, images, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    for name in ("a", "b"):
        shutil.copytree(images, data / name)
    (data / "c").mkdir()
    result = invoke(*arguments, f"--data={data}", "--dry-run")
    assert "8 cells: 8 to do" in result.stdout
    assert "b, autoencoder with the block, seed 1" in result.stdout
    assert "No classes, left out: c" in result.stderr
    assert os.listdir(tmp_path) == ["data"]


# === Processes ===


def _stop_when_training(arguments, run, number, environment):
    """Starts the program, signals it in its first cell; code and output."""
    checkpoint = Path(run.file("checkpoint.npz"))
    before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
    process = subprocess.Popen(
        command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        # As a shell starts what is to run in the background.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    deadline = time.monotonic() + 120
    while not (checkpoint.exists() and checkpoint.stat().st_mtime_ns > before):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    # The output ends with the process of the cell, which has it, too.
    output, _ = process.communicate(timeout=120)
    return process.returncode, output


@pytest.mark.slow
def test_killed_and_interrupted_comparisons_go_on(arguments, tmp_path):
    # As users have it: the processes of the cells are quiet, too.
    environment = {**os.environ}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    out = tmp_path / "out"
    options = [*arguments[:-1], "--seeds=1", "--sspcab=off", f"--out={out}"]
    options.append("--set=training.epochs=24")
    run = RunFolder(str(cell(out, "off", 0)))
    seconds, outputs = [], []
    for number in (signal.SIGKILL, signal.SIGINT):
        code, output = _stop_when_training(options, run, number, environment)
        assert code == {signal.SIGINT: 130}.get(number, -number)
        assert "Traceback" not in output
        assert "oneDNN" not in output
        assert not run.is_finished
        # Written at the end of the cell: it has ended in good order.
        seconds.append(run.record["seconds"]["training"])
        assert run.record["command"][:2] == ["keras-sspcab", "compare"]
        outputs.append(output)
    assert 0 < seconds[0] < seconds[1]
    assert "epoch 1/24" in outputs[0]
    assert "1 cells: 1 begun" in outputs[1]
    assert "epoch 1/24" not in outputs[1]
    assert "Continue with: keras-sspcab compare" in outputs[1]
