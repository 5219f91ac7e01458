"""Durable writes: atomic, fenced, with translated errors."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stream_learner.durable import (
    AppendFile,
    canonical_json,
    fsync_tree,
    make_folder,
    recover_folder,
    remove,
    rename_dir,
    sha256_file,
    storage_errors,
    unfenced,
    write_file,
)
from stream_learner.errors import ConfigError, RetryableError, StateError


def test_write_file_replaces_whole_and_leaves_nothing_else(tmp_path: Path) -> None:
    write_file(tmp_path / "a", b"one")
    write_file(tmp_path / "a", b"two")
    assert (tmp_path / "a").read_bytes() == b"two"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    write_file(tmp_path / "a", b"one")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="a folder stands where a file is needed"):
        write_file(tmp_path / "folder", b"two")
    with pytest.raises(StateError, match="taken over"):
        write_file(tmp_path / "a", b"two", fenced_off)
    assert (tmp_path / "a").read_bytes() == b"one"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "folder"]


def fenced_off() -> None:
    raise StateError("taken over")


@pytest.mark.parametrize(
    ("code", "kind", "remedy"),
    [
        (errno.ENOSPC, RetryableError, "free some space"),
        (errno.EIO, RetryableError, "check the disk"),
        (errno.EROFS, RetryableError, "remount"),
        (errno.ETIMEDOUT, RetryableError, "check the disk and the mount"),
        (errno.EACCES, ConfigError, "permission"),
        (errno.ENOTDIR, ConfigError, "folder"),
    ],
)
def test_operating_system_errors_are_translated_with_path_and_remedy(
    code: int, kind: type[Exception], remedy: str
) -> None:
    with pytest.raises(kind, match=remedy) as caught, storage_errors(Path("/state/x"), "write"):
        raise OSError(code, os.strerror(code))
    assert "/state/x" in str(caught.value)


def test_the_full_device_is_a_retryable_error() -> None:
    full = Path("/dev/full")
    with pytest.raises(RetryableError, match="free some space"), storage_errors(full, "write"):
        full.write_bytes(b"x")


def test_rename_dir_replaces_and_recover_puts_back_what_a_kill_left(tmp_path: Path) -> None:
    for name, text in ((".tmp-v", "new"), ("v", "old")):
        make_folder(tmp_path / name)
        (tmp_path / name / "f").write_text(text)
    fsync_tree(tmp_path / ".tmp-v")
    rename_dir(tmp_path / ".tmp-v", tmp_path / "v")
    assert (tmp_path / "v" / "f").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["v"]

    (tmp_path / "v").rename(tmp_path / ".replaced-v")  # killed between the two renames
    (tmp_path / ".tmp-v").mkdir()
    assert recover_folder(tmp_path) == [".tmp-v"]
    assert (tmp_path / "v" / "f").read_text() == "new"

    (tmp_path / ".replaced-v").mkdir()  # killed after both
    assert recover_folder(tmp_path) == [".replaced-v"]
    assert (tmp_path / "v" / "f").read_text() == "new"


def test_make_folder_where_a_file_stands_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(ConfigError, match="a file stands"):
        make_folder(tmp_path / "f" / "g")


def test_append_file_grows_cuts_and_refuses_to_have_been_cut(tmp_path: Path) -> None:
    file = AppendFile(tmp_path / "deep" / "log")
    file.append(b"one\n")
    file.append(b"two\n")
    file.cut(4)
    file.append(b"2\n")
    file.close()
    file.close()
    again = AppendFile(tmp_path / "deep" / "log")
    assert again.read() == b"one\n2\n"
    assert again.size_bytes == 6
    with pytest.raises(StateError, match="has 6 bytes where the snapshot saw 7"):
        again.cut(7)
    again.close()


def test_a_failed_append_leaves_no_half_line(tmp_path: Path) -> None:
    """The file size limit of a child process makes the second append fail half-way."""
    code = f"""
import resource, signal
from pathlib import Path
from stream_learner.durable import AppendFile
from stream_learner.errors import RetryableError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
file = AppendFile(Path({str(tmp_path / "log")!r}))
file.append(b"whole\\n")
resource.setrlimit(resource.RLIMIT_FSIZE, (10, 1 << 20))
try:
    file.append(b"too long for ten bytes\\n")
except RetryableError:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    file.append(b"retried\\n")
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent)
    assert (tmp_path / "log").read_bytes() == b"whole\nretried\n"


def test_sha256_and_canonical_json(tmp_path: Path) -> None:
    (tmp_path / "e").write_bytes(b"")
    assert sha256_file(tmp_path / "e") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert canonical_json({"b": [1, None], "a": "é"}) == b'{"a":"\\u00e9","b":[1,null]}'
    with pytest.raises(ValueError):
        canonical_json({"a": float("nan")})


def test_an_append_file_opened_again_leaves_the_earlier_writer_a_file_without_a_name(tmp_path: Path) -> None:
    earlier = AppendFile(tmp_path / "log")
    earlier.append(b"one\n")
    later = AppendFile(tmp_path / "log")
    earlier.append(b"late\n")
    later.append(b"two\n")
    earlier.append(b"later still\n")
    assert later.read() == (tmp_path / "log").read_bytes() == b"one\ntwo\n"
    assert [p.name for p in tmp_path.iterdir()] == ["log"]
    earlier.close()
    later.close()


def test_a_fence_stops_appends_opening_and_cleaning(tmp_path: Path) -> None:
    (tmp_path / ".tmp-v").mkdir()
    (tmp_path / "log").write_bytes(b"one\n")
    with pytest.raises(StateError, match="taken over"):
        AppendFile(tmp_path / "log", fenced_off)
    with pytest.raises(StateError, match="taken over"):
        recover_folder(tmp_path, fenced_off)
    fences = [unfenced]
    file = AppendFile(tmp_path / "log", lambda: fences[0]())
    fences[0] = fenced_off
    with pytest.raises(StateError, match="taken over"):
        file.append(b"two\n")
    file.close()
    assert (tmp_path / "log").read_bytes() == b"one\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == [".tmp-v", "log"]


@pytest.mark.parametrize("late_first", [True, False])
def test_a_late_rename_comes_before_the_cleaning_or_not_at_all(tmp_path: Path, late_first: bool) -> None:
    """The newcomer cleans between the fence and the rename of an earlier writer, or after both."""
    (tmp_path / ".tmp-v").mkdir()
    (tmp_path / ".tmp-v" / "f").write_text("whole")
    if late_first:
        rename_dir(tmp_path / ".tmp-v", tmp_path / "v")
        assert recover_folder(tmp_path) == []
        assert (tmp_path / "v" / "f").read_text() == "whole"
    else:
        assert recover_folder(tmp_path) == [".tmp-v"]
        with pytest.raises(RetryableError):
            rename_dir(tmp_path / ".tmp-v", tmp_path / "v")
        assert not (tmp_path / "v").exists()
    assert not remove(tmp_path / ".tmp-v")


def test_a_half_removed_folder_has_lost_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".tmp-v").mkdir()
    (tmp_path / ".tmp-v" / "f").write_text("whole")

    def torn(path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error", str(path))

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", torn)
        with pytest.raises(RetryableError):
            recover_folder(tmp_path)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".tmp-removed-.tmp-v-")
    assert recover_folder(tmp_path) == [left.name]
    assert list(tmp_path.iterdir()) == []
