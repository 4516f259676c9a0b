import ast
import json
import os
import time
from pathlib import Path

import pandas as pd
import pytest

import ser_strategies
from ser_strategies.common.files import (
    ABANDONED,
    copy_file,
    whole_file,
    whole_folder,
    write_json,
    write_table,
    write_text,
)

TABLE = pd.DataFrame({"id": ["a", 'b,"c'], "seconds": [0.1, 2.5]})
WRITERS = {
    "x.json": lambda path: write_json(path, {"name": "é", "value": 0.1}),
    "x.txt": lambda path: write_text(path, "é\n"),
    "x.csv": lambda path: write_table(path, TABLE),
    "x.parquet": lambda path: write_table(path, TABLE),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_is_replaced_only_by_a_whole_one(name, tmp_path, monkeypatch):
    def full(_: int) -> None:
        raise OSError("no space left")

    path = tmp_path / "new" / name
    WRITERS[name](path)
    whole = path.read_bytes()
    path.write_bytes(b"before")
    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="no space left"):
            WRITERS[name](path)
    assert path.read_bytes() == b"before"
    WRITERS[name](path)
    assert path.read_bytes() == whole
    assert list(path.parent.iterdir()) == [path]


def test_what_is_written_can_be_read(tmp_path):
    for name, write in WRITERS.items():
        write(tmp_path / name)
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == {"name": "é", "value": 0.1}
    assert (tmp_path / "x.txt").read_bytes() == "é\n".encode()
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "x.csv"), TABLE)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "x.parquet"), TABLE)


def test_two_writers_of_one_file_do_not_mix(tmp_path):
    path = tmp_path / "x"
    with whole_file(path) as first, whole_file(path) as second:
        first.write(b"first")
        second.write(b"second")
    assert path.read_bytes() == b"first"


def test_a_number_that_is_not_finite_is_no_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"score": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_replaced_only_by_a_whole_one(tmp_path):
    path = tmp_path / "x"
    with whole_folder(path) as folder:
        (folder / "a").write_text("before")
    with pytest.raises(FileNotFoundError), whole_folder(path) as folder:
        (folder / "nowhere/b").write_text("half")
    assert [each.name for each in path.iterdir()] == ["a"]
    with whole_folder(path) as folder:
        (folder / "b").write_text("after")
    assert [each.name for each in path.iterdir()] == ["b"]
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_goes_with_the_next_and_nobody_elses(tmp_path):
    path = tmp_path / "x[1]"
    names = [".x[1].0.partial", ".x[1].1.partial/file", ".x1.2.partial", ".x[1].3.partial"]
    for name in names:
        write_text(tmp_path / name, "half")
    for left in (names[0], ".x[1].1.partial", names[2]):
        os.utime(tmp_path / left, (0, time.time() - 2 * ABANDONED))
    write_text(path, "whole")
    # One is of another file, and one may still be written.
    assert {each.name for each in tmp_path.iterdir()} == {"x[1]", names[2], names[3]}


def test_a_copy_is_whole_or_not_there(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"x" * 100)
    copy_file(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"x" * 100
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(OSError, match="no space"):
        copy_file(tmp_path / "a", tmp_path / "c")
    assert {each.name for each in tmp_path.iterdir()} == {"a", "b"}


# Calls that leave half a file behind when they are stopped, and pages that may make them: into what is not in
# its place yet, or where half of it is found out.
IN_PLACE = {"write_text", "write_bytes", "copyfile", "copytree", "savefig", "save_pretrained"}
ALLOWED = {
    "cli/examples.py": "into a whole_folder",
    "encoder/exporting.py": "into a whole_folder",
    "encoder/low_rank.py": "into a whole_folder, or where a user asks for an adapter",
    "fit/robustness.py": "into a whole_file",
    "comparison/report/matrix_picture.py": "into a whole_file",
    "comparison/report/picture.py": "into memory",
    "costs/machine.py": "to the system",
    "data/manifest/shards.py": "into a folder that gets its name at the end",
    "data/synthetic/synthetic.py": "before the manifest, which says that all is there",
    "runs/ray_engine.py": "for one job, which reads it then",
}


def test_files_are_written_whole():
    """A rule that new pages keep: write with common/files.py."""
    package = Path(ser_strategies.__file__).parent
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in IN_PLACE
    }
    assert found == set(ALLOWED)
