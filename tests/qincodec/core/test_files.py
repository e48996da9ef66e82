"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from qincodec.core.errors import UserError
from qincodec.core.files import StoreError, explain_os_errors, file_sha256, replacing, safe_name, write_atomic


def test_write_atomic_leaves_the_old_file_when_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.txt"
    write_atomic(path, "old")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(StoreError, match="disk full"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.txt"]


@pytest.mark.parametrize("large", [False, True])
def test_a_file_takes_its_place_when_the_block_ends_well(tmp_path: Path, large: bool) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    mask = os.umask(0o027)
    try:
        with replacing(path, large=large) as temporary:
            temporary.write_bytes(b"new")
            assert path.read_bytes() == b"old"
            assert temporary.parent == tmp_path
    finally:
        os.umask(mask)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o640  # as any file that the user makes
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.bin"]


@pytest.mark.parametrize("large", [False, True])
def test_a_block_that_fails_leaves_the_old_file_alone(tmp_path: Path, large: bool) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), replacing(path, large=large) as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    with pytest.raises(UserError, match=r"cannot write '.*file\.bin': No space left"), replacing(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.bin"]


def test_kills_leave_at_most_one_part_of_a_large_file(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    (tmp_path / ".writing-state.pt").write_bytes(b"longer than what comes now")  # as a kill leaves it
    with replacing(path, large=True) as temporary:
        assert temporary.name == ".writing-state.pt"
        temporary.open("ab").write(b"new")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.pt"]


def test_names_become_safe_folder_names() -> None:
    assert safe_name("opus@16") == "opus@16"
    assert safe_name("../../etc") == "_.._etc"
    assert safe_name("my codec/2") == "my_codec_2"
    assert safe_name("...") == "_"


@pytest.mark.parametrize("number", [errno.ENOTDIR, errno.EACCES, errno.EIO])
def test_the_caller_says_what_to_do_next(tmp_path: Path, number: int) -> None:
    message = r"cannot write .*; give another --out"
    with pytest.raises(StoreError, match=message), explain_os_errors(tmp_path, "give another --out"):
        raise OSError(number, os.strerror(number))


def test_sha256_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_sha256(tmp_path / "abc") == expected
