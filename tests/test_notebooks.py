"""The notebooks run, on little data, and show what they showed last."""

import nbformat
import pytest

pytest.importorskip("nbclient", reason="notebooks need nbclient and ipykernel")
pytest.importorskip("ipykernel", reason="notebooks need nbclient and ipykernel")

from tools.notebooks import find_notebooks, run_notebook

NOTEBOOKS = {path.stem: path for path in find_notebooks()}
TINY = {
    "1_one_layer": {"NUM_IMAGES": 8, "SIZE": 32, "EPOCHS": 1},
    "2_inspect_a_folder": {"NUM_TRAIN": 6, "NUM_TEST": 4, "SIZE": 64},
    "3_video_stream": {
        **{"NUM_VIDEOS": 2, "NUM_FRAMES": 24, "SIZE": 32, "EPOCHS": 1}
    },
    "4_export_and_serve": {"NUM_TRAIN": 6, "SIZE": 64},
    "5_with_and_without_the_block": {
        "NUM_TRAIN": 8,
        "SIZE": 64,
        "SEEDS": 1,
        "SETTINGS": ["training.epochs=1"],
    },
    "6_a_host_of_your_own": {"NUM_TRAIN": 8, "SIZE": 48, "EPOCHS": 1},
}


def outputs(notebook):
    cells = (c for c in notebook.cells if c.cell_type == "code")
    return [output for cell in cells for output in cell.outputs]


def pictures(notebook):
    return [
        output
        for output in outputs(notebook)
        if {"image/jpeg", "image/png"} & set(output.get("data", ()))
    ]


def test_there_are_six():
    assert NOTEBOOKS.keys() == TINY.keys()


@pytest.mark.parametrize(
    "name",
    # The first is of a layer alone; the others are whole roads.
    [
        pytest.param(n, marks=pytest.mark.slow if n[0] > "1" else ())
        for n in TINY
    ],
)
def test_it_runs(name):
    pytest.importorskip("onnxruntime")
    shown = run_notebook(NOTEBOOKS[name], TINY[name])
    kept = nbformat.read(NOTEBOOKS[name], as_version=4)
    # As many pictures as the one that is kept, from the same cells.
    assert len(pictures(shown)) == len(pictures(kept)) >= 1
    assert len(outputs(shown)) == len(outputs(kept))


@pytest.mark.parametrize("path", NOTEBOOKS.values(), ids=NOTEBOOKS)
def test_it_is_kept_without_noise(path):
    assert path.stat().st_size < 400_000
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert all(c.get("execution_count") is None for c in notebook.cells)
    assert all(o.get("name") != "stderr" for o in outputs(notebook))
    assert "/tmp/" not in path.read_text("utf-8")
    assert len(pictures(notebook)) >= 1
