"""The notebook of examples/ was executed from the first cell to the last, without an error, and is small."""

import json
from pathlib import Path

NOTEBOOK = Path(__file__).parents[1] / "examples/quickstart.ipynb"


def test_the_notebook_is_executed_and_small():
    assert NOTEBOOK.stat().st_size < 500_000
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    pictures = [name for output in outputs for name in output.get("data", {}) if name.startswith("image/")]
    assert len(pictures) == 2
