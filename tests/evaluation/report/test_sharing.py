"""Files for others have no paths, no name of a user and no address that failed."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pandas as pd
import pytest
from synthetic_results import make_results, troubled

from evaluation.report import write_all
from evaluation.report.html.clips import Signal
from evaluation.report.html.write import render_page
from evaluation.report.sharing import shareable, shareable_results
from evaluation.results import Results


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no such file: /home/alice/data/x.wav", "no such file: …/x.wav"),
        ("cannot read '/home/al ice/my data/x y.wav': denied", "cannot read '…/x y.wav': denied"),
        ("put it into /root/.cache/q/w.h5, or --weights w=/mnt/a", "put it into …/w.h5, or --weights w=…/a"),
        ("https://host.example/a/w.h5?token=1: <timed out>", "…/w.h5: <timed out>"),
        ("s3://bucket/folder/", "…/folder"),
        (r"C:\Users\bob\x.wav broke; \\server\share\y.wav", "…/x.wav broke; …/y.wav"),
        ("evaluate /home/alice --out ~/runs/x", "evaluate ~ --out …/x"),
        ('File "/usr/lib/x.py", line 3', 'File "…/x.py", line 3'),
        ("QINCODEC_CACHE=/tmp/abc/d", "QINCODEC_CACHE=…/d"),
    ],
)
def test_only_the_last_name_of_a_path_remains(text: str, expected: str) -> None:
    assert shareable(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("2^H over 1 / frames, dB/oct, and/or 24/7", "./my.py:MuLaw ../a/b.wav recordings/birds/owl"),
        *("8 kbps: 7.99", "a <b> & c", "", "[95% interval]", "x = y // 2"),
    ],
)
def test_text_without_a_path_is_not_changed(text: str) -> None:
    assert shareable(text) is text


def tell_tale() -> Results:
    """Results with a secret path in every message."""
    secret = "see '/home/alice/top secret/f.wav', /mnt/alice/g.h5 and https://alice.example/w?t=1"
    results = troubled(disclaimer=secret, notes=[secret], excluded=[["x.wav", secret]], n_excluded=1)
    results.clips["error"] = results.clips["error"].where(results.clips["error"].isna(), secret)
    results.clips["si_sdr_reason"] = secret
    results.unavailable, results.skipped, results.remarks = {"openl3": secret}, {"dac": secret}, [secret]
    results.environment = {"packages": {"x": secret}, "other_machines": [{"home": "/home/alice"}]}
    results.conditions[0] = dataclasses.replace(results.conditions[0], identity={"version": "1", "f": secret})
    results.corpus[0] = dataclasses.replace(results.corpus[0], kbps_entropy_reason=secret)
    results.noise_floor = make_results(control=True)
    results.noise_floor.clips["si_sdr_reason"] = secret
    return results


def test_nothing_shared_has_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluation.report.files.write_plots", lambda *_: [])
    for path in write_all(tell_tale(), tmp_path):
        text = path.read_text() if path.suffix != ".parquet" else pd.read_parquet(path).to_csv()
        assert "alice" not in text and "top secret" not in text, path.name
        assert path.name == "tests.csv" or re.search(r"(…|\.\.\.|ldots\{\})/f.wav", text), path.name
    card = Signal("opus", "8", "", [], 0, problem="no file /home/alice/x.wav")
    page = render_page(tell_tale(), [], ["/home/alice/y is gone"], commands=["evaluate /home/alice/z"])
    assert "alice" not in page and "evaluate …/z" in page and "…/y is gone" in page
    assert shareable([card])[0].problem == "no file …/x.wav"


def test_results_without_paths_are_the_same_object() -> None:
    """So nothing is computed twice for them."""
    results = troubled()
    assert shareable_results(results) is results
