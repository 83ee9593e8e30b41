import os
import signal
from pathlib import Path

import pytest

from mlc_controlnet.errors import UserError
from mlc_controlnet.files import (
    append_line,
    check_replaceable,
    check_writable_file,
    check_writable_folder,
    locked,
    remove,
    whole_file,
    whole_folder,
    write_bytes,
    write_text,
)

CHANGES = ("mkdir", "rename", "replace", "rmdir", "unlink", "fsync", "open")  # calls that change the disk


def die_at(call: int, work) -> bool:
    """Do `work` in a forked process that gets SIGKILL just before its `call`-th change of the disk.

    Returns whether it died; a `work` with fewer changes finishes.
    """
    child = os.fork()
    if child == 0:
        calls = 0

        def counted(real):
            def count_and_call(*arguments, **options):
                nonlocal calls
                calls += 1
                if calls == call:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*arguments, **options)

            return count_and_call

        for name in CHANGES:
            setattr(os, name, counted(getattr(os, name)))
        work()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    write_text(tmp_path / "name.json", "alt")
    write_text(tmp_path / "name.json", "neu, ü")
    assert (tmp_path / "name.json").read_bytes() == "neu, ü".encode()
    assert list(tmp_path.iterdir()) == [tmp_path / "name.json"]


def test_an_error_leaves_the_older_file(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a.png", b"old")
    with pytest.raises(KeyboardInterrupt), whole_file(tmp_path / "a.png") as partial:
        partial.write_bytes(b"ne")
        raise KeyboardInterrupt
    assert (tmp_path / "a.png").read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [tmp_path / "a.png"]


def test_the_name_in_between_keeps_the_suffix(tmp_path: Path) -> None:
    """Pillow and numpy choose the format by it."""
    with whole_file(tmp_path / "a.png") as partial:
        partial.touch()
    assert partial.suffix == ".png"


def test_a_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    write_bytes(tmp_path / "whole", b"")
    (tmp_path / "plain").touch()
    assert (tmp_path / "whole").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_link_stays_and_its_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to("file")
    write_bytes(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_bytes() == b"new"


def test_a_folder_is_replaced_with_everything_in_it(tmp_path: Path) -> None:
    (tmp_path / "result" / "deep").mkdir(parents=True)
    with whole_folder(tmp_path / "result") as partial:
        (partial / "new").touch()
    assert [path.name for path in (tmp_path / "result").iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [tmp_path / "result"]


def test_an_error_leaves_the_older_folder(tmp_path: Path) -> None:
    (tmp_path / "result" / "old").mkdir(parents=True)
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "result") as partial:
        (partial / "new").touch()
        raise ZeroDivisionError
    assert [path.name for path in (tmp_path / "result").iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [tmp_path / "result"]


def test_death_at_any_moment_leaves_the_older_or_the_newer_folder(tmp_path: Path) -> None:
    target = tmp_path / "result"

    def write(number: int) -> None:
        with whole_folder(target) as partial:
            for name in ("a", "b"):
                (partial / name).write_text(str(number))

    write(0)
    for dies_at in range(1, 100):
        died = die_at(dies_at, lambda: write(dies_at))  # noqa: B023 - called at once
        with pytest.raises(ZeroDivisionError), whole_folder(target):
            raise ZeroDivisionError  # the next writer restores a folder that was between two names
        contents = {(target / name).read_text() for name in ("a", "b")}
        assert len(contents) == 1
        if not died:
            break
    assert dies_at > 10 and contents == {str(dies_at)}
    assert list(tmp_path.iterdir()) == [target]


def test_removing_a_link_keeps_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    remove(tmp_path / "link")
    remove(tmp_path / "nothing")
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


def test_a_line_is_appended_below_one_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    append_line(path, "one\n")
    with path.open("ab") as file:
        file.write(b"tw")
    append_line(path, "three\n")
    assert path.read_text() == "one\ntw\nthree\n"


def test_a_full_disk_leaves_the_lines_that_were_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lines"
    append_line(path, "one\n")

    def refuse(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space left"):
        append_line(path, "two\n")
    assert path.read_text() == "one\n"


def test_a_lock_keeps_other_processes_out_until_its_holder_lets_go(tmp_path: Path) -> None:
    def another_process_has_it() -> bool:
        child = os.fork()
        if child == 0:
            with locked(tmp_path / "lock", wait=False) as is_ours:
                os._exit(0 if is_ours else 1)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    with locked(tmp_path / "lock", wait=False) as is_ours:
        assert is_ours
        assert not another_process_has_it()
    assert another_process_has_it()


def test_a_link_and_the_folder_that_one_is_in_can_be_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both look like a mounted disk to those who compare a path with its parent."""
    (tmp_path / "link").symlink_to("/")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"link: got where a disk is mounted"):
        check_replaceable(Path("link"), is_older=True, kind="a bundle")
    (tmp_path / "folder").mkdir()
    (tmp_path / "other").symlink_to(tmp_path / "folder")
    check_replaceable(Path("other"), is_older=False, kind="a bundle")
    monkeypatch.chdir(tmp_path / "folder")
    check_replaceable(Path(), is_older=False, kind="a bundle")


def test_a_place_to_write_in_is_a_folder_or_becomes_one(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for free in (tmp_path, tmp_path / "new", tmp_path / "new" / "deeper"):
        check_writable_folder(free, "--out")
    for taken in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=rf"--out: got {taken}, where {tmp_path}/file is a file, wanted a folder"):
            check_writable_folder(taken, "--out")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_to_write_needs_its_folder(tmp_path: Path) -> None:
    check_writable_file(tmp_path / "new.json", "--raw")
    with pytest.raises(UserError, match=r"--raw: got a folder, wanted a file name"):
        check_writable_file(tmp_path, "--raw")
    with pytest.raises(UserError, match=r"--raw: got no folder .*none, wanted an existing folder"):
        check_writable_file(tmp_path / "none" / "new.json", "--raw")


def test_a_place_without_the_right_to_write_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # an administrator has every right
    with pytest.raises(UserError, match=r"--out .*new: got no right to write in .*, wanted a writable folder"):
        check_writable_folder(tmp_path / "new", "--out")
    with pytest.raises(UserError, match=r"--raw: got no right to write in "):
        check_writable_file(tmp_path / "new.json", "--raw")
