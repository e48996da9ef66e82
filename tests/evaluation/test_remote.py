"""Data at an address, against the same files in a folder."""

from __future__ import annotations

import functools
import json
import shutil
import sys
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pytest
from data_sets import ids, sound
from fsspec.implementations.memory import MemoryFileSystem

from evaluation import evaluate
from evaluation.cli.evaluate import main
from evaluation.datasets import Dataset, load_dataset
from evaluation.datasets.remote import without_secrets
from evaluation.session import command_line
from qincodec.core.errors import UserError
from qincodec.core.files import cache_folder

pytestmark = pytest.mark.usefixtures("own_cache", "online")


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """These addresses are in memory and on this machine."""
    for variable in ("QINCODEC_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five sounds, three of them below; what is hidden, and what is no audio."""
    folder = tmp_path_factory.mktemp("data") / "bells"
    names = ("a.wav", "big bells/b 1.wav", "big bells/b 2.flac", "big bells/old/100%.wav", "d.wav")
    for seed, name in enumerate((*names, ".hidden.wav", ".hidden/e.wav")):
        sound(folder / name, seed=seed)
    (folder / "notes.txt").write_text("bells")
    rows = [{"path": "a.wav", "category": "x"}, {"path": "./big bells/../big bells/b 1.wav"}]
    (folder / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def address(folder: Path) -> Iterator[str]:
    """The same in a file system in memory."""
    root = f"memory://{uuid.uuid4().hex}"
    fs = fsspec.filesystem("memory")
    for path in folder.rglob("*"):
        if path.is_file():
            fs.pipe_file(f"{root}/bells/{path.relative_to(folder).as_posix()}", path.read_bytes())
    yield f"{root}/bells"
    if fs.exists(root):
        fs.rm(root, recursive=True)


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what is fetched from memory, from here on."""
    names: list[str] = []
    get_file = MemoryFileSystem.get_file

    def counted(self: MemoryFileSystem, name: str, path: str, **options: Any) -> None:
        get_file(self, name, path, **options)
        names.append(name.partition("/bells/")[2])

    monkeypatch.setattr(MemoryFileSystem, "get_file", counted)
    return names


@pytest.fixture
def server(folder: Path) -> Iterator[str]:
    """The folder on the web, of which ``/secret`` is closed."""
    pytest.importorskip("aiohttp")

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def send_head(self) -> Any:
            if "/secret" in self.path:
                return self.send_error(403)
            return super().send_head()

    handler = functools.partial(Handler, directory=str(folder.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def but_paths(dataset: Dataset) -> Dataset:
    return replace(dataset, clips=[replace(clip, path=Path()) for clip in dataset.clips])


@pytest.mark.parametrize("shard", [[], ["--shard", "1/2"]])
def test_an_address_is_listed_once_for_a_run(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard: list[str]
) -> None:
    """By the command, and by a shard, whose pilot is of all of the data; also when it goes on."""
    listed: list[str] = []
    find = MemoryFileSystem.find
    monkeypatch.setattr(
        MemoryFileSystem, "find", lambda self, *a, **o: (listed.append(a[0]), find(self, *a, **o))[1]
    )
    words = ["evaluate", address, "--codecs", "opus", "--kbps", "16", "--metrics", "si_sdr", *shard]
    monkeypatch.setattr("sys.argv", [*words, "--out", str(tmp_path / "run")])
    monkeypatch.setattr("evaluation.report.files.write_plots", lambda *_: [])
    for times in (1, 2):
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code and len(listed) == times


NAMES = (
    "",
    "/",
    "/big bells",
    "/a.wav",
    "/list.jsonl",
    "/*",
    "/*.wav",
    "/**/*.wav",
    "/b*/*",
    "/**",
    "/[ad].wav",
)


@pytest.mark.parametrize("name", NAMES)
def test_the_clips_are_those_of_the_folder(name: str, folder: Path, address: str) -> None:
    found = load_dataset(address + name)
    assert but_paths(found) == but_paths(load_dataset(str(folder) + name))
    assert all(clip.path.is_relative_to(cache_folder()) for clip in found.clips)


@pytest.mark.parametrize("options", [{"limit": 2, "seed": 3}, {"shard": "2/3"}, {"limit": 4, "shard": "1/2"}])
def test_only_what_is_drawn_is_fetched(
    options: dict[str, Any], folder: Path, address: str, fetched: list[str]
) -> None:
    found = load_dataset(address, **options)
    assert but_paths(found) == but_paths(load_dataset(folder, **options))
    assert sorted(name.rpartition(".")[0] for name in fetched) == ids(found)


def test_what_has_not_changed_is_not_fetched_again(address: str, fetched: list[str]) -> None:
    before = load_dataset(address)
    assert len(fetched) == 5
    fetched.clear()
    assert load_dataset(address) == before and load_dataset(f"{address}/a.wav").clips[0] == before.clips[0]
    assert fetched == []

    fs = fsspec.filesystem("memory")
    fs.pipe_file(f"{address}/a.wav", fs.cat_file(f"{address}/d.wav"))  # of the same size
    fs.rm(f"{address}/big bells/b 1.wav")
    before.clips[-1].path.write_bytes(b"damaged")
    after = load_dataset(address)
    assert sorted(fetched) == ["a.wav", "d.wav"]
    assert ids(after) == [name for name in ids(before) if name != "big bells/b 1"]
    assert after.clips[0].content_hash == after.clips[-1].content_hash == before.clips[-1].content_hash


def test_an_interrupted_fetch_goes_on(
    address: str, fetched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = MemoryFileSystem.get_file

    def breaks(self: MemoryFileSystem, name: str, path: str, **options: Any) -> None:
        if name.endswith(("b 1.wav", "d.wav")):
            Path(path).write_bytes(b"half")
            raise ConnectionResetError("the line is dead, https://host/x?token=abc")
        whole(self, name, path, **options)

    others = set(threading.enumerate())
    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "get_file", breaks)
        with pytest.raises(UserError, match=r"cannot be read.*the line is dead.*the network") as error:
            load_dataset(address)
        for thread in set(threading.enumerate()) - others:
            thread.join()  # a file that was on its way arrives
    assert "token" not in str(error.value)
    while_broken = len(fetched)
    assert len(ids(load_dataset(address))) == 5
    assert len(fetched) == 5 and while_broken <= 3
    assert not list(cache_folder().rglob(".writing-*"))


def test_offline_takes_what_is_there(
    folder: Path, address: str, fetched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load_dataset(address, limit=1)
    listed = load_dataset(f"{address}/list.jsonl")
    fetched.clear()
    monkeypatch.setenv("QINCODEC_OFFLINE", "1")
    fsspec.filesystem("memory").rm(address, recursive=True)
    assert load_dataset(address, limit=1) == before
    assert load_dataset(f"{address}/list.jsonl") == listed
    assert ids(load_dataset(f"{address}/a.wav")) == ["a"]
    with pytest.raises(
        UserError, match=r"[1-4] of 5 files are not in the cache.*not with QINCODEC_OFFLINE=1"
    ):
        load_dataset(address)
    with pytest.raises(UserError, match=r"has not been listed on this machine.*where downloads are allowed"):
        load_dataset(f"{address}/big bells/old")
    assert fetched == []


def test_a_manifest_here_may_name_addresses(folder: Path, address: str, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"path": f"{address}/a.wav"},
        {"path": f"{address}/big bells/b 1.wav", "start_s": 0.1},
    ]
    list_file = tmp_path / "list.jsonl"
    list_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = load_dataset(list_file)
    assert ids(found) == ["a", "big bells/b 1@0.1s"]
    assert [clip.error for clip in found.clips] == [None, None]
    rows.append({"path": str(folder / "d.wav")})
    list_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match="give each row an 'id'"):
        load_dataset(list_file)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("s3://bucket/folder", "needs a driver that is not installed: run `pip install s3fs`"),
        ("nonesuch://user:pw@bucket/x?token=1", "'nonesuch://bucket/x' cannot be read: .*nonesuch"),
        ("memory://nowhere/x", "no such data: 'memory://nowhere/x'"),
        ("memory://nowhere/*.wav", "'memory://nowhere.*' has no files"),
        ("memory://a/../b/x.wav", "which a path here cannot have"),
        ("audiocaps:s3://bucket", "give a folder of this machine for AudioCaps"),
        ("http://127.0.0.1:9/a.wav?token=abc", "'http://127.0.0.1:9/a.wav' cannot be read"),
        ("https://host/folder?token=abc", "'https://host/folder' had a query; only an audio file"),
    ],
)
def test_what_cannot_be_had_is_said_in_one_line(
    data: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(UserError, match=message) as error:
        load_dataset(data)
    assert not any(text in str(error.value) for text in ("token", "pw", "\n"))


def test_a_web_server(server: str, folder: Path) -> None:
    before = load_dataset(folder)
    found = load_dataset(f"http://me:secret-word@{server}/bells/")
    assert but_paths(found) == but_paths(before)
    assert "secret-word" not in str(found)
    one = load_dataset(f"http://{server}/bells/big%20bells/b%201.wav?token=abc")
    assert one.clips[0].content_hash == before.clips[1].content_hash and ids(one) == ["b 1"]
    assert but_paths(load_dataset(f"http://{server}/bells/list.jsonl")) == but_paths(
        load_dataset(folder / "list.jsonl")
    )
    kept = [path for path in (cache_folder() / "remote").rglob("*") if path.is_file()]
    texts = [path.read_text("latin-1") + str(path) for path in kept]
    assert not any(word in text for text in texts for word in ("token", "secret"))
    with pytest.raises(UserError, match=r"'http://[^?@]+/secret' cannot be read: .*403.*denied"):
        load_dataset(f"http://me:pw@{server}/secret")
    for name, message in (("nowhere/", "has no files"), ("nothing.wav", "no such data")):
        with pytest.raises(UserError, match=message):
            load_dataset(f"http://{server}/{name}")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:pw@host:80/a.wav?token=1", "https://host:80/a.wav"),
        ("--reference=https://token@host/a?x=/@b", "--reference=https://host/a"),
        ("403, url='http://host/a?x=1', 'b'", "403, url='http://host/a', 'b'"),
        ("zip://a.wav::https://u:p@host/a.zip?x", "zip://a.wav::https://host/a.zip"),
        ("hf://datasets/me/set@main/a.wav", "hf://datasets/me/set@main/a.wav"),
        ("abfs://box@account.dfs.core.windows.net/a", "abfs://box@account.dfs.core.windows.net/a"),
        ("what? a/b@c", "what? a/b@c"),
    ],
)
def test_passwords_and_queries_are_not_shown(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


def test_a_run_begun_on_a_folder_goes_on_from_the_address(
    folder: Path, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(data: str, out: Path, codecs: str) -> pd.DataFrame:
        results = evaluate(
            data, codecs, "64", out=out, metrics="si_sdr", sample_rate=16000, match="nominal", workers=1
        )
        columns = ["codec", "clip", "kbps", "si_sdr", "error"]
        return results.clips[columns].sort_values(columns[:2]).reset_index(drop=True)

    run(str(folder), tmp_path / "run", "mp3")
    here = run(str(folder), tmp_path / "here", "mp3,opus")
    rows = {path.name: path.read_bytes() for path in (tmp_path / "run").rglob("rows*.jsonl")}
    shutil.copytree(tmp_path / "run", tmp_path / "before")
    pd.testing.assert_frame_equal(run(address, tmp_path / "run", "mp3,opus"), here)
    for name, content in rows.items():  # nothing that was scored is scored again
        [path] = (tmp_path / "run").rglob(name)
        assert path.read_bytes().startswith(content)
    monkeypatch.setattr(sys, "argv", ["evaluate", "https://me:pw@host/a.wav?token=abc", "--limit", "2"])
    assert command_line() == "evaluate https://host/a.wav --limit 2"
