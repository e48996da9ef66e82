"""Pretrained files: where they are looked for, how they are verified, and downloads from bad servers."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flaky_server import Site, serve

from baselines import download, weights, weights_files
from baselines.weights import FILES
from baselines.weights_files import WeightsFile
from qincodec.core.errors import Unavailable, UserError

CONTENT = bytes(range(256)) * 4000  # 1 MB


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, in which the file of a test will lie."""
    monkeypatch.setenv("QINCODEC_CACHE", str(tmp_path))
    for variable in ("QINCODEC_OFFLINE", "HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(weights, "_explicit", {})
    monkeypatch.setattr(weights_files, "_digests", {})
    monkeypatch.setattr(download, "PAUSE_S", 0.0)
    return tmp_path / "weights"


@pytest.fixture
def site() -> Iterator[Site]:
    with serve(Site(CONTENT)) as served:
        yield served


def known(monkeypatch: pytest.MonkeyPatch, url: str = "http://127.0.0.1:1/", **facts: Any) -> WeightsFile:
    """A file of the table with these facts."""
    file = WeightsFile("mine", "mine.bin", url, "dac", "MIT", "Me", **facts)
    monkeypatch.setitem(FILES, "mine", file)
    return file


SHA256 = hashlib.sha256(CONTENT).hexdigest()


# ---- the table -----------------------------------------------------------------------------------------


def test_table_is_sound() -> None:
    assert len({file.filename for file in FILES.values()}) == len(FILES)
    for name, file in FILES.items():
        assert file.name == name
        assert file.url.startswith("https://")
        assert file.licence
        assert file.attribution
        assert file.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", file.sha256)
        assert file.git_blob is None or re.fullmatch(r"[0-9a-f]{40}", file.git_blob)
        if file.sha256_prefix:
            assert file.sha256_prefix in file.url


def test_git_blob_is_gits(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cache.mkdir()
    path = cache / "mine.bin"
    path.write_bytes(CONTENT)
    git = subprocess.run(["git", "hash-object", path], capture_output=True, text=True, check=True)
    known(monkeypatch, git_blob=git.stdout.strip())
    assert weights.find("mine") == path
    known(monkeypatch, git_blob="0" * 40)
    with pytest.raises(UserError, match="git blob id"):
        weights.find("mine")


# ---- looking for it ------------------------------------------------------------------------------------


def test_a_missing_file_comes_with_advice(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known(monkeypatch)
    assert weights.find("mine") is None
    text = weights.why_unavailable("mine")
    assert "\n" not in text
    for part in ("evaluate weights fetch mine", "'mine.bin'", f"'{cache}'", "--weights mine=PATH"):
        assert part in text
    with pytest.raises(UserError, match="did you mean"):
        weights.find("min")
    assert not cache.exists()


@pytest.mark.parametrize("variable", ["QINCODEC_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_no_server_is_asked(site: Site, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    known(monkeypatch, site.url)
    monkeypatch.setenv(variable, "1")
    with pytest.raises(Unavailable, match=f"not with {variable}=1"):
        weights.obtain("mine")
    assert site.requests == []


def test_a_path_goes_first_whatever_it_holds(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    known(monkeypatch, sha256="0" * 64)
    own = tmp_path / "own.bin"
    with pytest.raises(UserError, match="no such file"):
        weights.use("mine", own)
    own.write_bytes(b"mine")
    weights.use("mine", own)
    assert weights.find("mine") == weights.obtain("mine") == own
    assert weights.sha256(own) == hashlib.sha256(b"mine").hexdigest()
    own.write_bytes(b"else")
    os.utime(own, ns=(1, 1))
    assert weights.sha256(own) == hashlib.sha256(b"else").hexdigest()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own.bin"]
    with pytest.raises(UserError, match="unknown weights"):
        weights.use("nobody", own)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"sha256": "0" * 64}, "SHA-256 is"),
        ({"sha256_prefix": "00000000"}, "SHA-256 is"),
        ({"size": 5}, "1024000 bytes instead of 5"),
    ],
)
def test_a_wrong_cached_file_is_moved_aside(
    cache: Path, monkeypatch: pytest.MonkeyPatch, facts: dict[str, Any], reason: str
) -> None:
    known(monkeypatch, **facts)
    cache.mkdir()
    (cache / "mine.bin").write_bytes(CONTENT)
    with pytest.raises(UserError, match=reason) as caught:
        weights.find("mine")
    assert "evaluate weights fetch mine" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in cache.iterdir()] == ["mine.bin.bad"]
    assert weights.find("mine") is None


def test_digests_are_computed_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known(monkeypatch, sha256=SHA256)
    cache.mkdir()
    path = cache / "mine.bin"
    path.write_bytes(CONTENT)
    assert weights.find("mine") == path

    def forget() -> None:
        monkeypatch.setattr(weights_files, "_digests", {})

    def refuse(*_: object) -> dict[str, str]:
        raise AssertionError("read again")

    forget()
    with monkeypatch.context() as patched:
        patched.setattr(weights_files, "_hash", refuse)
        assert weights.find("mine") == path  # a new process
        assert weights.sha256(path) == SHA256
    forget()
    path.write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(UserError, match="moved to"):
        weights.find("mine")


def test_without_a_published_digest_the_first_copy_is_the_one(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known(monkeypatch)
    cache.mkdir()
    path = cache / "mine.bin"
    path.write_bytes(CONTENT)
    assert weights.find("mine") == path
    os.utime(path, ns=(1, 1))  # copied elsewhere and back
    assert weights.find("mine") == path
    path.write_bytes(b"another")
    with pytest.raises(UserError, match="not the file that was first used here") as caught:
        weights.find("mine")
    assert path.read_bytes() == b"another"
    memo = next(part for part in str(caught.value).split("'") if part.endswith(".json"))
    Path(memo).unlink()
    assert weights.find("mine") == path


def test_a_cache_that_cannot_be_written_can_be_read(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known(monkeypatch, sha256=SHA256)
    cache.mkdir()
    (cache / "mine.bin").write_bytes(CONTENT)

    def refuse(*_: object) -> None:
        raise UserError("read-only")

    monkeypatch.setattr(weights_files, "replacing", refuse)
    assert weights.find("mine") == cache / "mine.bin"


@pytest.mark.parametrize("rubbish", ["", "[]", "{}", '{"size": 1', '{"sha256": 1}'])
def test_a_damaged_memo_is_ignored(cache: Path, monkeypatch: pytest.MonkeyPatch, rubbish: str) -> None:
    known(monkeypatch, sha256=SHA256)
    cache.mkdir()
    (cache / "mine.bin").write_bytes(CONTENT)
    (cache / "mine.bin.json").write_text(rubbish)
    assert weights.find("mine") == cache / "mine.bin"
    assert json.loads((cache / "mine.bin.json").read_text())["sha256"] == SHA256


# ---- downloads -----------------------------------------------------------------------------------------


def leftovers(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir() if not path.name.startswith(".")}


def test_download(
    cache: Path, site: Site, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    known(monkeypatch, site.url, sha256=SHA256, size=len(CONTENT))
    steps: list[tuple[int, int]] = []
    path = weights.obtain("mine", lambda what, done, total: steps.append((done, total)))
    assert path == cache / "mine.bin"
    assert path.read_bytes() == CONTENT
    assert steps[-1] == (1, 1)
    assert leftovers(cache) == {"mine.bin", "mine.bin.json"}
    assert weights.obtain("mine") == path
    assert len(site.requests) == 1
    shown = capfd.readouterr()
    assert shown.out == ""
    assert site.url in shown.err
    assert "MIT" in shown.err


def test_a_digest_nobody_published_is_shown(
    site: Site, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    known(monkeypatch, site.url)
    weights.obtain("mine")
    assert f"sha256 {SHA256}" in capfd.readouterr().err


@pytest.mark.parametrize("ranges", [True, False])
def test_broken_downloads_continue(
    cache: Path, site: Site, monkeypatch: pytest.MonkeyPatch, ranges: bool
) -> None:
    known(monkeypatch, site.url, sha256=SHA256)
    site.ranges = ranges
    site.breaks = [1000, 300_000, 400_000]
    assert weights.obtain("mine").read_bytes() == CONTENT
    assert [request.get("range") for request in site.requests] == (
        [None, "bytes=1000-", "bytes=301000-", "bytes=701000-"]
        if ranges
        else [None, "bytes=1000-", "bytes=300000-", "bytes=400000-"]
    )
    assert leftovers(cache) == {"mine.bin", "mine.bin.json"}


def test_the_download_of_an_interrupted_process_continues(
    cache: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    known(monkeypatch, site.url, sha256=SHA256)
    context = multiprocessing.get_context("fork")

    def killed() -> None:
        def kill(*_: object) -> None:
            os._exit(1)

        weights.obtain("mine", kill)

    process = context.Process(target=killed)
    process.start()
    process.join()
    size = (cache / "mine.bin.part").stat().st_size if (cache / "mine.bin.part").exists() else 0
    assert weights.find("mine") is None
    assert weights.obtain("mine").read_bytes() == CONTENT
    assert site.requests[-1].get("range") == (f"bytes={size}-" if size else None)


@pytest.mark.parametrize("tag", ['"2"', None])
def test_a_file_that_changed_meanwhile_is_not_mixed(
    cache: Path, site: Site, monkeypatch: pytest.MonkeyPatch, tag: str | None
) -> None:
    known(monkeypatch, site.url)
    site.breaks = [500_000, 0, 0, 0, 0]
    with pytest.raises(UserError, match="kept"):
        weights.obtain("mine")
    assert (cache / "mine.bin.part").stat().st_size == 500_000
    site.content, site.tag, site.breaks = CONTENT[::-1], tag, []
    assert weights.obtain("mine").read_bytes() == CONTENT[::-1]


def test_a_server_that_ignores_if_range_does_not_mix_files(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    known(monkeypatch, site.url)
    site.breaks = [500_000, 0, 0, 0, 0]
    with pytest.raises(UserError):
        weights.obtain("mine")
    site.breaks = []
    site.content = CONTENT[::-1]
    # Its tag has changed too, but it sends the range all the same.
    monkeypatch.setattr(download, "_strong", lambda headers: '"2"')
    assert weights.obtain("mine").read_bytes() == CONTENT[::-1]


def test_without_a_validator_a_download_starts_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    known(monkeypatch, site.url, sha256=SHA256)
    site.tag = 'W/"1"'
    site.breaks = [500_000]
    assert weights.obtain("mine").read_bytes() == CONTENT
    assert all("range" not in request for request in site.requests)


def test_a_length_that_is_too_large_ends(cache: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    known(monkeypatch, site.url)
    site.claims = len(CONTENT) + 1000
    site.ranges = False
    with pytest.raises(UserError, match=r"broke off after 1\.0 MB, which are kept") as caught:
        weights.obtain("mine")
    assert "evaluate weights fetch mine" in str(caught.value)
    assert str(cache / "mine.bin") in str(caught.value)
    assert len(site.requests) <= 1 + download.PATIENCE
    assert not (cache / "mine.bin").exists()


def test_a_length_that_is_too_small_is_found_out(
    cache: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    known(monkeypatch, site.url, sha256=SHA256)
    site.claims = 1000
    with pytest.raises(UserError, match="is not 'mine': its SHA-256"):
        weights.obtain("mine")
    assert leftovers(cache) == {"mine.bin.bad"}
    known(monkeypatch, site.url, size=len(CONTENT))
    with pytest.raises(UserError, match="offers 1000 bytes, weights 'mine' have 1024000"):
        weights.obtain("mine")


@pytest.mark.parametrize("facts", [{}, {"sha256": SHA256}])
@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_a_download_of_unknown_length_that_is_cut_is_not_the_file(
    cache: Path, site: Site, monkeypatch: pytest.MonkeyPatch, framing: str, facts: dict[str, Any]
) -> None:
    """The digest of the cut file would be recorded, and the right one be refused from then on."""
    known(monkeypatch, site.url, **facts)
    site.framing, site.ranges, site.breaks = framing, False, [500_000] * 9
    with pytest.raises(UserError, match=r"broke off|IncompleteRead|does not send the length|is not 'mine'"):
        weights.obtain("mine")
    assert weights.find("mine") is None and not (cache / "mine.bin.json").exists()
    site.breaks = []
    if framing == "chunked" or facts:
        assert weights.obtain("mine").read_bytes() == CONTENT


def test_an_empty_file_is_refused_as_weights(
    cache: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    known(monkeypatch, site.url)
    site.content = b""
    with pytest.raises(UserError, match="the server sends an empty file"):
        weights.obtain("mine")
    assert weights.find("mine") is None


@pytest.mark.parametrize("part", ["bytes 5-9/10", "", "bytes x-y/z", f"bytes 0-1/{'9' * 5000}"])
def test_a_part_that_nobody_asked_for(
    cache: Path, site: Site, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    known(monkeypatch, site.url)
    site.part = part
    with pytest.raises(UserError, match="the server sends a wrong part of the file") as caught:
        weights.obtain("mine")
    assert "\n" not in str(caught.value) and "evaluate weights fetch mine" in str(caught.value)
    assert weights.find("mine") is None


@pytest.mark.parametrize("length", ["\xb2", "9" * 5000, "-5", "5, 5"])
def test_a_length_that_is_not_a_number_is_ignored(
    site: Site, monkeypatch: pytest.MonkeyPatch, length: str
) -> None:
    known(monkeypatch, site.url)
    site.length = length
    with pytest.raises(UserError, match="does not send the length of weights 'mine'"):
        weights.obtain("mine")


def test_a_part_that_was_complete_is_taken(cache: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    known(monkeypatch, site.url, sha256=SHA256)
    cache.mkdir()
    (cache / "mine.bin.part").write_bytes(CONTENT)
    (cache / "mine.bin.part.source").write_text(json.dumps({"url": site.url, "validator": '"1"'}))
    assert weights.obtain("mine").read_bytes() == CONTENT
    assert len(site.requests) == 1


def test_a_part_that_is_too_long_is_dropped(cache: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    known(monkeypatch, site.url, sha256=SHA256)
    cache.mkdir()
    (cache / "mine.bin.part").write_bytes(CONTENT + b"more")
    (cache / "mine.bin.part.source").write_text(json.dumps({"url": site.url, "validator": '"1"'}))
    assert weights.obtain("mine").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("setting", "message", "requests"),
    [
        ({"status": 404}, "answers 404 Not Found", 1),
        ({"status": 403}, "answers 403 Forbidden", 1),
        ({"status": 503}, "answers 503", 1),
        ({"content_type": "text/html; charset=utf-8"}, "a web page instead", 1),
        ({"location": "/file"}, "answers 302 The HTTP server returned a redirect error", 5),
    ],
)
def test_what_a_server_refuses(
    cache: Path,
    site: Site,
    monkeypatch: pytest.MonkeyPatch,
    setting: dict[str, object],
    message: str,
    requests: int,
) -> None:
    known(monkeypatch, site.url)
    for name, value in setting.items():
        setattr(site, name, value)
    with pytest.raises(UserError, match=message) as caught:
        weights.obtain("mine")
    assert "\n" not in str(caught.value)
    assert len(site.requests) == requests
    assert leftovers(cache) == set()


@pytest.mark.parametrize("validator", ["a\nb", 5, {"a": 1}])
def test_a_damaged_validator_begins_again(
    cache: Path, site: Site, monkeypatch: pytest.MonkeyPatch, validator: object
) -> None:
    known(monkeypatch, site.url, sha256=SHA256)
    cache.mkdir()
    (cache / "mine.bin.part").write_bytes(b"other")
    source = {"url": site.url, "validator": validator}
    (cache / "mine.bin.part.source").write_text(json.dumps(source))
    assert weights.obtain("mine").read_bytes() == CONTENT
    assert "range" not in site.requests[0]


def test_a_server_that_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(Site(CONTENT)) as gone:
        pass
    known(monkeypatch, gone.url)
    with pytest.raises(UserError, match="Connection refused"):
        weights.obtain("mine")
    known(monkeypatch, "http://no-such-host.invalid/file")
    with pytest.raises(UserError, match="cannot download"):
        weights.obtain("mine")


def test_a_folder_that_cannot_be_written(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    known(monkeypatch, site.url)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("QINCODEC_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="QINCODEC_CACHE"):
        weights.obtain("mine")


def test_a_full_disk_is_reported_before_the_download(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    known(monkeypatch, site.url)
    usage: Callable[[object], object] = lambda _: type("Usage", (), {"free": 1000})  # noqa: E731
    monkeypatch.setattr("shutil.disk_usage", usage)
    with pytest.raises(UserError, match=r"need 1 MB in .* 0 MB left"):
        weights.obtain("mine")


def test_two_processes_download_once(cache: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    known(monkeypatch, site.url, sha256=SHA256)
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=weights.obtain, args=("mine", lambda *_: None)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(site.requests) == 1
    assert weights.find("mine") == cache / "mine.bin"
