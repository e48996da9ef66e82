"""``evaluate weights``, downloads before a run, and runs of codecs with pretrained networks."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import pandas as pd
import pytest
from flaky_server import Site, serve
from known import announce
from pages import code

from baselines import download, weights
from baselines.weights import FILES
from evaluation.cli import evaluate as cli

Shared = Callable[[str], Path]
NAMES = ("dac-8kbps", "dac-16kbps")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QINCODEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    for variable in ("QINCODEC_OFFLINE", "HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(variable, "")
    monkeypatch.setattr(weights, "_explicit", {})
    monkeypatch.setattr(download, "PAUSE_S", 0.0)
    return tmp_path / "cache" / "weights"


@pytest.fixture
def sites(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Site]]:
    """The table's DAC files, at a server on this machine that serves tiny models."""
    contents = [shared(f"golden/dac/{name}.pth").read_bytes() for name in ("tiny8k", "tiny16k")]
    with serve(Site(contents[0])) as first, serve(Site(contents[1])) as second:
        served = dict(zip(NAMES, (first, second), strict=True))
        for name, site in served.items():
            monkeypatch.setitem(FILES, name, replace(FILES[name], url=site.url))
        yield served


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """`evaluate ARGUMENTS`: exit code, stdout and stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["evaluate", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        shown = capfd.readouterr()
        return int(end.value.code or 0), shown.out, shown.err

    return call


Run = Callable[..., tuple[int, str, str]]
SHORT = ("--limit", "1", "--chunk", "0.5", "--metrics", "si_sdr", "--workers", "1", "--match", "nominal")


def test_the_list_has_every_file(run: Run, cache: Path) -> None:
    code, out, _ = run("weights")
    assert code == 0
    assert str(cache) in out
    for file in FILES.values():
        for part in (file.name, file.url, file.licence, str(cache / file.filename)):
            assert part in out
    unknown = [name for name, file in FILES.items() if file.published is None]
    assert {"dac-8kbps", "xcodec2"} < {*unknown} and "mimi" not in unknown
    assert out.count("not published") == len(unknown)
    assert not cache.exists()


def test_files_of_installed_codecs_are_listed_and_fetched(
    run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With the guide's entry point. A codec that cannot be imported does not hide the others."""
    monkeypatch.setattr(weights, "FILES", dict(FILES))
    monkeypatch.syspath_prepend(tmp_path)
    with serve(Site(b"x" * 1000)) as site:
        text = code("docs/how-to/extend.md", "BlockVq")
        (tmp_path / "block_vq.py").write_text(text.replace("https://example.org/", site.url))
        announce(
            monkeypatch,
            EntryPoint("broken", "no_such_module:Codec", "qincodec.codecs"),
            EntryPoint("block-vq", "block_vq:BlockVq", "qincodec.codecs"),
        )
        status, out, _ = run("weights")
        assert status == 0 and "block-vq, for block-vq" in out
        status, out, _ = run("weights", "fetch", "block-vq")
    name, path = out.split()
    assert (status, name, Path(path).read_bytes()) == (0, "block-vq", b"x" * 1000)


def test_fetch(run: Run, cache: Path, sites: dict[str, Site]) -> None:
    sites["dac-8kbps"].breaks = [1_000_000, 500_000]
    code, out, err = run("weights", "fetch", "dac")
    assert code == 0
    assert out.splitlines() == [f"{name}\t{cache / FILES[name].filename}" for name in NAMES]
    assert err.count("downloading") == 2
    assert len(sites["dac-8kbps"].requests) == 3
    for name, site in sites.items():
        assert (cache / FILES[name].filename).read_bytes() == site.content
    code, out, err = run("weights", "fetch", *NAMES)
    assert (code, err) == (0, "")
    _, out, _ = run("weights")
    assert out.count("yes, 3.5 MB, as first seen, sha256 ") == 1
    assert out.count("yes, 3.6 MB, as first seen, sha256 ") == 1


def test_errors_of_fetch(run: Run, cache: Path, sites: dict[str, Site]) -> None:
    code, out, err = run("weights", "fetch", "dac-8kbs")
    assert (code, out) == (2, "")
    assert "did you mean dac-8kbps" in err
    sites["dac-8kbps"].status = 404
    code, out, err = run("weights", "fetch", "dac-8kbps")
    assert (code, out) == (2, "")
    assert "answers 404 Not Found" in err.splitlines()[-1]
    assert run("weights", "fetch")[0] == 2
    sites["dac-16kbps"].breaks = [1_200_000, 0, 0, 0, 0]
    code, out, err = run("weights", "fetch", "dac-16kbps")
    assert code == 2
    assert "1.2 MB, which are kept" in err
    assert "1.2 MB of a broken download exist" in run("weights")[1]


def test_a_wrong_file_in_the_cache_is_listed_as_such(run: Run, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / FILES["mimi"].filename).write_bytes(b"not it")
    code, out, _ = run("weights")
    assert code == 0
    assert "it has 6 bytes instead of 384649828" in out


# ---- runs ----------------------------------------------------------------------------------------------


def test_weights_are_fetched_before_a_run(
    run: Run, tmp_path: Path, sites: dict[str, Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    code, _, err = run("--codecs", "dac", "--kbps", "8,16", *SHORT, "--dry-run", "--out", str(out))
    assert code == 2
    assert "evaluate weights fetch dac-8kbps dac-16kbps" in err
    code, _, err = run("--codecs", "dac", "--kbps", "8,16", *SHORT, "--offline", "--out", str(out))
    assert code == 2
    assert "not with QINCODEC_OFFLINE=1" in err
    assert not any(site.requests for site in sites.values())
    monkeypatch.setenv("QINCODEC_OFFLINE", "")
    code, shown, err = run("--codecs", "dac", "--kbps", "8,16", *SHORT, "--out", str(out))
    assert code == 0, err
    assert err.index("downloading weights 'dac-16kbps'") < err.index("run folder")
    assert "dac@8: 7.752 kbps, model 8kbps, num_codebooks 9" in err
    assert "dac@16: 15.5 kbps, model 16kbps, num_codebooks 18" in err
    assert "RANDOM WEIGHTS" not in shown
    rows = pd.read_csv(out / "clips.csv")
    assert rows["error"].isna().all()
    assert rows["kbps_measured"].round(1).tolist() == [7.9, 15.8]
    assert [len(site.requests) for site in sites.values()] == [1, 1]


def test_files_of_ones_own(run: Run, shared: Shared, tmp_path: Path) -> None:
    own = [
        f"{name}={shared(f'golden/dac/{file}.pth')}"
        for name, file in zip(NAMES, ("tiny8k", "tiny16k"), strict=True)
    ]
    out = tmp_path / "run"
    arguments = ("--kbps", "8", *SHORT, "--weights", own[0], "--weights", own[1], "--out", str(out))
    code, _, err = run("--codecs", "opus", *arguments)
    assert code == 2
    assert "is for codec 'dac', which is not among --codecs" in err
    code, _, err = run("--codecs", "dac,one=dac:16kbps", *arguments)
    assert code == 0, err
    assert "one@8: 7.752 kbps, model 16kbps, num_codebooks 9" in err
    assert not (tmp_path / "cache" / "weights").exists()
    code, _, err = run("--codecs", "dac", "--weights", "dac-8kbps=/nowhere", *SHORT)
    assert code == 2
    assert "no such file" in err


def test_skip_unavailable_when_the_server_is_down(run: Run, tmp_path: Path, sites: dict[str, Site]) -> None:
    sites["dac-8kbps"].status = 503
    out = str(tmp_path / "run")
    code, _, err = run("--codecs", "dac,opus", "--kbps", "8", *SHORT, "--out", out)
    assert code == 2
    assert "answers 503" in err
    code, _, err = run("--codecs", "dac,opus", "--kbps", "8", *SHORT, "--out", out, "--skip-unavailable")
    assert code == 0
    assert "answers 503" in err
    assert "skipped dac: " in err


def test_random_weights_are_stamped_everywhere(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "run"
    codecs = [f"{name}:untrained:tiny" for name in ("qincodec", "dac", "encodec", "mimi")]
    code, shown, err = run(
        "--codecs", ",".join([*codecs, "opus"]), "--kbps", "8,16", *SHORT, "--out", str(out)
    )
    assert code == 0, err
    stamp = "RANDOM WEIGHTS, never trained: qincodec, dac, encodec, mimi; scores mean nothing"
    for text in (shown, (out / "table.md").read_text(), (out / "table.tex").read_text()):
        assert stamp in text
    rows = pd.read_csv(out / "clips.csv")
    assert len(rows) == 10
    assert rows["error"].isna().all()
    summary = json.loads((out / "summary.json").read_text())
    assert "untrained" in json.dumps(summary)
