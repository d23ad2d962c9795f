"""The wheel holds config groups, licence and the mark of its types; the command line works from it in any folder."""

import os
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

CLONE = Path(__file__).parents[1]


def test_the_command_line_works_from_a_wheel(tmp_path):
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(CLONE)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    groups = {path.relative_to(CLONE / "conf") for path in (CLONE / "conf").rglob("*.yaml")}
    assert {path.relative_to(installed / "sn6/conf") for path in (installed / "sn6/conf").rglob("*.yaml")} == groups
    assert (installed / "sn6/py.typed").is_file()
    (metadata,) = installed.glob("sn6-*.dist-info/METADATA")
    fields = Parser().parsestr(metadata.read_text(encoding="utf-8"))
    assert fields["License-Expression"] == "Apache-2.0"
    licences = [metadata.parent / "licenses" / name for name in fields.get_all("License-File")]
    assert [path.read_bytes() for path in licences] == [(CLONE / "LICENSE").read_bytes()]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "sn6.run", "experiment=baseline", "--cfg", "job"],
        cwd=elsewhere,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "_target_: sn6.models.ternausnet.TernausNet" in done.stdout
    assert "max_epochs: 50" in done.stdout
