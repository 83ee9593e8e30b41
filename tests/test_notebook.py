"""The notebook runs from top to bottom and ends with a gold disc on navy where the ring was."""

import base64
import io
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

pytestmark = pytest.mark.integration

NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "compile_walkthrough.ipynb"


@pytest.fixture(scope="module")
def executed() -> nbformat.NotebookNode:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    return notebook


def test_the_last_cell_shows_the_disc_where_the_ring_was(executed: nbformat.NotebookNode) -> None:
    data = next(output.data["image/png"] for output in executed.cells[-1].outputs if "data" in output)
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(int)
    drawn = picture[::2, 256::2]  # the right half, at its own size: [128, 128, 3]
    assert np.abs(np.median(drawn[60:80, 42:62], axis=(0, 1)) - [255, 215, 0]).max() < 40
    assert np.abs(np.median(drawn[:20, 90:], axis=(0, 1)) - [0, 0, 128]).max() < 40


def test_the_committed_notebook_holds_no_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
