"""Each table of the paper, tiny: real trainings in this process."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("cv2")

from keras_sspcab.compare import cell as cells
from keras_sspcab.compare import paper as module
from keras_sspcab.compare.paper import read_paper_table
from tests.cli.cells import finish, read_csv, run_here

CROPS = [
    "--set=data.image_size=16",
    "--set=model.filters=[2, 2, 1]",
    "--set=objects.min_area=20",
    "--set=training.epochs=1",
    "--set=data.step=2",
    "--set=evaluation.smoothing_size=1.0",
]


@pytest.fixture(autouse=True)
def _cells_run_here(monkeypatch):
    monkeypatch.setattr(cells, "run_in_own_process", run_here)


@pytest.fixture(scope="module")
def avenue(tmp_path_factory):
    """Squares that walk; in the test video a larger one as well."""
    root = tmp_path_factory.mktemp("videos") / "avenue"
    for part, name in (("train", "1"), ("train", "2"), ("test", "1")):
        for kind in ("", "ground_truth"):
            if kind and part == "train":
                continue
            folder = root / (kind or part) / name
            folder.mkdir(parents=True)
            for i in range(10):
                frame = np.full((40, 64), 0 if kind else 60, "uint8")
                if not kind:
                    frame[6:12, 4 * i : 4 * i + 6] = 200
                if part == "test" and i > 4:
                    frame[20:32, 5 * i : 5 * i + 10] = 255
                Image.fromarray(frame).save(folder / f"{i:02d}.png")
    return root


def reproduce(invoke, out, table, data, *options, code=0):
    result = invoke(
        *("reproduce", table, "--budget=cpu", f"--out={out}", "--seeds=7,"),
        f"--data={data}",
        *options,
        code=code,
    )
    rows = read_csv(out / "comparison.csv")
    return result.output, rows, (out / "comparison.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("table", ["table1", "table4", "table5"])
def test_tables_of_the_auto_encoder(
    invoke, avenue, tmp_path, monkeypatch, table
):
    # All blocks are built in the tests of `paper`.
    paper = read_paper_table(table, "cpu")
    some = tuple(dict.fromkeys((*paper.blocks[:2], paper.blocks[-1])))
    paper = dataclasses.replace(paper, blocks=some)
    monkeypatch.setattr(module, "read_paper_table", lambda *_: paper)
    output, rows, page = reproduce(invoke, tmp_path, table, avenue, *CROPS)
    assert [row["block"] for row in rows] == list(paper.blocks)
    for row in rows:
        assert all(0 <= float(row[metric]) <= 1 for metric in paper.metrics)
    assert len({row["parameters"] for row in rows}) > 1
    # Ours and the paper's, a row for each block.
    block = paper.blocks[-1]
    assert page.count(f"| object_autoencoder + {block} |") == 2
    assert "Source: [Ristea et al., CVPR 2022]" in page
    assert f"{block} - off" in page
    assert f"keras-sspcab reproduce {table} --data avenue --budget cpu" in page
    assert "- Objects come from a pretrained detector: --set" in page
    assert "CUHK Avenue" not in output
    # Cut out once for all trainings.
    assert len(list((tmp_path / "objects").iterdir())) == 3


@pytest.mark.slow
def test_table_2(invoke, images, tmp_path):
    output, rows, page = reproduce(
        invoke,
        tmp_path,
        "table2",
        images,
        "--set=data.image_size=32",
        "--set=training.epochs=1",
        "--set=draem:model.base_width=2",
        "--set=cutpaste:model.base_width=4",
    )
    assert [(row["model"], row["block"]) for row in rows] == [
        ("draem", "off"),
        ("draem", "on"),
        ("cutpaste", "off"),
        ("cutpaste", "on"),
    ]
    assert "of MVTec AD, which is not there: https://www.mvtec.com" in output
    assert "draem:model.texture_folder=FOLDER" in output
    # The paper's classes, as none of them is there.
    assert "| carpet |" in page


@pytest.mark.slow
def test_table_3_is_of_all_hosts(invoke, avenue, tmp_path, monkeypatch):
    monkeypatch.setattr(cells, "run_in_own_process", finish)
    _, rows, page = reproduce(invoke, tmp_path, "table3", avenue)
    models = read_paper_table("table3", "cpu").models
    assert [row["model"] for row in rows[::2]] == list(models)
    assert "| hf2vad + SSPCAB | 90.9 | 92.2 | 62.27 |" in page
    assert "ShanghaiTech" in page


@pytest.mark.slow
def test_table_3_with_the_smallest_hosts(invoke, avenue, tmp_path, monkeypatch):
    paper = read_paper_table("table3", "cpu")
    some = ("mnad", "background_agnostic")
    paper = dataclasses.replace(paper, models=some)
    monkeypatch.setattr(module, "read_paper_table", lambda *_: paper)
    _, rows, _ = reproduce(
        invoke,
        tmp_path,
        "table3",
        avenue,
        *("--set=training.epochs=1", "--set=objects.min_area=20"),
        *("--set=data.image_size=32", "--set=model.base_width=2"),
        "--set=mnad:data.clip_length=3",
        "--set=background_agnostic:evaluation.smoothing_size=1.0",
    )
    assert len(rows) == 4
    assert all(0 <= float(row["micro_auc"]) <= 1 for row in rows)


def test_dry_run_measures_steps(invoke, avenue, tmp_path):
    result = invoke(
        *("reproduce", "table5", "--budget=cpu", "--dry-run", *CROPS),
        *(f"--data={avenue}", f"--out={tmp_path}"),
    )
    assert "15 cells: 15 to do" in result.output
    assert "mask_1x1, mask_3x3" in result.output
    assert "hours on this machine" in result.output
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "objects").exists()


def test_table_6(invoke, tmp_path, monkeypatch):
    from keras_sspcab.compare import timing

    known = timing.cases("cpu")
    assert {"draem", "mnad", "object_autoencoder"} <= known.keys()
    few = {"object_autoencoder": known["object_autoencoder"]}
    monkeypatch.setattr(timing, "cases", lambda budget: few)
    monkeypatch.setattr(timing, "measure", lambda budget, progress: tiny)
    tiny = [timing.Timing("mnad", "CPU", 10.0, 11.0, 1.1, (1.0, 1.2), 9)]
    invoke("reproduce", "table6", "--budget=cpu", f"--out={tmp_path}")
    page = (tmp_path / "table6.md").read_text()
    assert "| mnad | CPU | 10 | 11 | 1.10 (1.00 to 1.20) | - |" in page
    (row,) = read_csv(tmp_path / "table6.csv")
    assert (row["low"], row["high"]) == ("1.0", "1.2")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["table7"], "table1"),
        (["table1"], "table1 needs --data"),
        (["table6", "--data=x"], "on random images. Received: --data"),
        (["table1", "--budget=gpu"], "paper"),
        (["table1", "--data=nowhere"], "no folder of videos"),
    ],
)
def test_errors(invoke, arguments, message):
    assert message in invoke("reproduce", *arguments, code=2).output
