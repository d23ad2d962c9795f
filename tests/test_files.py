"""Files are written atomically."""

import pytest
from helpers.errors import user_error

from sn6.files import atomic_write, write_text


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "file.csv"
    path.write_text("old")

    def disk_full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", disk_full)
    with user_error("unwritable", path):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["file.csv"]


def test_an_interrupt_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.png"
    path.write_text("old")

    def stopped():
        with atomic_write(path) as part:
            part.write_text("ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["file.png"]


def test_folders_are_made_and_the_suffix_is_kept(tmp_path):
    path = tmp_path / "a" / "b" / "file.png"
    with atomic_write(path) as part:
        assert part.suffix == ".png"
        part.write_text("new")
    assert path.read_text() == "new"


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("a file")
    with user_error("unwritable", tmp_path / "file" / "below.csv"):
        write_text(tmp_path / "file" / "below.csv", "text")
