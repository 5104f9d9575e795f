"""Row files and atomic replacement."""

import json
import os
import shutil
import threading

import numpy as np
import pytest

from mbpo_jax import files
from mbpo_jax.errors import DiskError
from tests.disks import room_for


def _row(env_steps: int, run: int = 0, **values: object) -> files.Row:
    return {"env_steps": env_steps, "run": run, "seed": 7 + run, **values}


class TestRows:
    def test_rows_come_back_in_order_over_several_appends(self, tmp_path):
        path = tmp_path / "rows.jsonl"
        rows = [_row(250, a=1.5), _row(500, note="half\nway", flag=True), _row(750, a=-2)]
        files.append_rows(path, rows[:2])
        files.append_rows(path, rows[2:])
        assert files.read_rows(path) == rows

    def test_numpy_values_become_plain_numbers(self, tmp_path):
        path = tmp_path / "rows.jsonl"
        row = {"a": np.float32(0.1), "b": np.int64(3), "c": np.bool_(True), "d": np.arange(2)}
        files.append_rows(path, [row | {"e": np.array(2.5)}])
        assert files.read_rows(path) == [
            {"a": float(np.float32(0.1)), "b": 3, "c": True, "d": [0, 1], "e": 2.5}
        ]

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("-inf")])
    def test_non_finite_is_null_so_that_every_line_is_valid_json(self, tmp_path, value):
        path = tmp_path / "rows.jsonl"
        files.append_rows(path, [_row(1, a=value, nested=[value, 1.0])])

        def refuse(constant: str) -> None:
            raise AssertionError(f"{constant} is not JSON")

        row = json.loads(path.read_text(), parse_constant=refuse)
        assert row == _row(1, a=None, nested=[None, 1.0])

    def test_torn_last_line_is_left_out_and_cut_before_the_next_row(self, tmp_path):
        path = tmp_path / "rows.jsonl"
        files.append_rows(path, [_row(1), _row(2)])
        whole = path.read_bytes()
        for kept in range(len(whole)):
            path.write_bytes(whole[:kept])
            complete = [_row(1), _row(2)][: whole[:kept].count(b"\n")]
            assert files.read_rows(path) == complete
            files.append_rows(path, [_row(3)])
            assert files.read_rows(path) == [*complete, _row(3)]

    def test_broken_line_before_the_end_is_named(self, tmp_path):
        path = tmp_path / "rows.jsonl"
        path.write_text('{"a": 1}\n{"a": \n{"a": 3}\n')
        with pytest.raises(files.LogError, match=r"rows\.jsonl, line 2: .*restore the file"):
            files.read_rows(path)


class TestReplacing:
    def test_of_two_who_write_a_file_at_once_each_is_whole_and_the_last_stays(self, tmp_path):
        path = tmp_path / "page"

        def write_second():
            with files.replacing(path) as file:
                # By their end cleaners and campaigns of faults know what is left over.
                assert [found.suffix for found in tmp_path.iterdir()] == [".tmp", ".tmp"]
                file.write(b"second")

        with files.replacing(path) as file:
            file.write(b"first and ")
            other = threading.Thread(target=write_second)
            other.start()
            other.join()
            assert path.read_bytes() == b"second"
            file.write(b"longer")
        assert path.read_bytes() == b"first and longer"
        assert [found.name for found in tmp_path.iterdir()] == ["page"]

    def test_json_is_replaced_as_a_whole_and_nothing_else_is_left(self, tmp_path):
        path = tmp_path / "status.json"
        files.write_json_atomic(path, {"state": "training", "env_steps": np.int32(5)})
        files.write_json_atomic(path, {"state": "done", "loss": float("nan")})
        assert json.loads(path.read_text()) == {"state": "done", "loss": None}
        assert list(tmp_path.iterdir()) == [path]

    def test_value_that_json_does_not_know_leaves_the_old_file(self, tmp_path):
        path = tmp_path / "status.json"
        files.write_json_atomic(path, {"state": "training"})
        with pytest.raises(TypeError):
            files.write_json_atomic(path, {"state": object()})
        assert json.loads(path.read_text()) == {"state": "training"}
        assert list(tmp_path.iterdir()) == [path]

    def test_failure_half_way_leaves_the_old_file(self, tmp_path):
        path = tmp_path / "figure.png"
        path.write_bytes(b"old")
        with pytest.raises(OSError, match="disk full"), files.replacing(path) as file:
            file.write(b"ne")
            raise OSError("disk full")
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]

    def test_old_content_stands_until_the_new_is_complete(self, tmp_path):
        path = tmp_path / "figure.png"
        path.write_bytes(b"old")
        with files.replacing(path) as file:
            file.write(b"new")
            file.flush()
            assert path.read_bytes() == b"old"
        assert path.read_bytes() == b"new"


class TestWithoutRoom:
    """What is raised names the file and the way out, and what was there before still is."""

    def test_a_file_that_does_not_fit_leaves_the_old_one(self, tmp_path):
        path = tmp_path / "status.json"
        files.write_json_atomic(path, {"state": "training"})
        with (
            room_for(100),
            pytest.raises(
                DiskError, match=r"status\.json: File too large .*1.2\d KiB.*same command"
            ),
        ):
            files.write_json_atomic(path, {"state": "x" * 1250})
        assert json.loads(path.read_text()) == {"state": "training"}
        assert list(tmp_path.iterdir()) == [path]

    def test_rows_that_do_not_fit_can_be_appended_later(self, tmp_path):
        path = tmp_path / "rows.jsonl"
        files.append_rows(path, [_row(1)])
        with (
            room_for(50),
            pytest.raises(DiskError, match=r"cannot write .*rows\.jsonl.*needs about"),
        ):
            files.append_rows(path, [_row(2)])
        assert files.read_rows(path) == [_row(1)]
        files.append_rows(path, [_row(2)])
        assert files.read_rows(path) == [_row(1), _row(2)]

    def test_a_full_disk_tells_what_is_free(self, tmp_path, monkeypatch):
        monkeypatch.setattr(files.os, "fsync", lambda _: os.write(os.open("/dev/full", 1), b"x"))
        with pytest.raises(DiskError, match=r"No space left on device \(needs.* free\); free some"):
            files.append_rows(tmp_path / "rows.jsonl", [_row(1)])

    def test_trouble_with_another_file_keeps_its_own_name(self, tmp_path):
        path = tmp_path / "report.html"
        with pytest.raises(FileNotFoundError, match=r"missing\.css"), files.replacing(path):
            (tmp_path / "missing.css").read_text()

    def test_a_directory_that_cannot_be_made_is_named(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(
            DiskError, match=r"cannot make the directory .*file/run: Not a directory"
        ):
            files.make_directory(tmp_path / "file" / "run")


@pytest.mark.parametrize("count", [0, 1, 7, 3000, 5000])
def test_the_last_rows_are_those_at_the_end(tmp_path, count):
    path = tmp_path / "rows.jsonl"
    rows = [{"n": n, "text": "x" * (n % 100)} for n in range(3000)]
    files.append_rows(path, rows)
    with open(path, "ab") as file:
        file.write(b'{"n": 3000, "te')  # was never finished
    assert files.read_last_rows(path, count) == rows[len(rows) - min(count, len(rows)) :]


def test_a_folder_into_which_a_thread_still_writes_is_removed_in_the_end(tmp_path, monkeypatch):
    folder, original, late = tmp_path / "partial", shutil.rmtree, [1, 2]
    folder.mkdir()

    def interrupted(path, **options):
        original(path, **options)
        if late:  # a write that was under way
            path.mkdir()
            (path / f"{late.pop()}").touch()

    monkeypatch.setattr(shutil, "rmtree", interrupted)
    files.remove_unfinished(folder)
    assert not folder.exists()
    assert not late
