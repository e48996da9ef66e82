"""`evaluate list`: fast, and every plug-in that does not work is a line in it."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from evaluation import evaluate
from evaluation.cli.listing import (
    _POINTS,
    codec_rows,
    embedding_rows,
    metric_rows,
    points,
    quantizer_rows,
)
from qincodec.core.errors import UserError

PLUGINS = """
import numpy as np
import torch
from known import StepCodec

from baselines.codec import Codec, Rate
from evaluation.embeddings.base import Embedding
from evaluation.metrics.base import Metric, Score
from qincodec.core.errors import Unavailable


class Raises(Codec):
    name, version, sample_rate = "raises", "1", 44100

    def rates(self, channels=1):
        return [Rate(1 / 0)]

    def encode(self, audio, rate): ...

    def decode(self, encoded): ...


class Nothing(Raises):
    def rates(self, channels=1):
        return []


class Unsure(Raises):
    @classmethod
    def unavailable(cls, weights=None):
        raise OSError("no\\nlicence")


class Panic(Raises):
    def rates(self, channels=1):
        raise BaseException("not an Exception")


class Ending(Raises):
    def rates(self, channels=1):
        raise SystemExit(0)


class Float(Metric):
    name, label, version, unit, higher_is_better = "float", "Float", "1", "", True
    definition = "Made up."

    def score(self, prepared, decoded, sample_rate):
        return [0.5] * len(decoded)


class Nameless(Float):
    unit = None


class Licensed(Float):
    name = "licensed"

    @classmethod
    def unavailable(cls):
        return "its licence server does not answer; start it"


class Five(Licensed):
    @classmethod
    def unavailable(cls):
        return 5


class Good(Float):
    name = "good"

    def score(self, prepared, decoded, sample_rate):
        return [Score(torch.tensor(0.5))] * len(decoded)


class Huge(Good):
    name = "huge"

    def score(self, prepared, decoded, sample_rate):
        return [Score(1e200)] * len(decoded)


class Double(Good):
    name = "si_sdr"


class Column(Good):
    name = "si_sdr_reason"


class Counted(Good):
    name = "n"


class Mean(Good):
    name = "si_sdr_ci_low"


class Heading(Good):
    label = "Two\\nlines"


class Long(Good):
    label = "L" * 1000


class Touchy(Good):
    @property
    def label(self):
        raise ZeroDivisionError("not yet")


class Speechless(Exception):
    def __str__(self):
        raise ValueError


class Silent(Good):
    @classmethod
    def unavailable(cls):
        raise Speechless


class Wordy(Good):
    name = "wordy"

    def score(self, prepared, decoded, sample_rate):
        raise LookupError("a\\0b\\n\\ud800" + "x" * 10**6)


class Unsold(Good):
    @classmethod
    def unavailable(cls):
        raise Unavailable("no licence;\\nbuy one")


class Wordless(Good):
    name = "wordless"

    def score(self, prepared, decoded, sample_rate):
        return [Score(float("nan"), "  ")] * len(decoded)


Module = torch


class Ints(Raises):
    def rates(self, channels=1):
        return [8, 16]


class Generator(Raises):
    def rates(self, channels=1):
        yield Rate(8.0)


class Fast(StepCodec):
    sample_rate = 10**9


class Zero(Raises):
    def rates(self, channels=1):
        return [Rate(0.0)]


class Nan(Raises):
    def rates(self, channels=1):
        return [Rate(float("nan"))]


class Numpy(StepCodec):
    def rates(self, channels=1):
        return [Rate(np.float32(8), {"bits": 8})]


class Flat(Embedding):
    name = label = version = "flat"
    definition = "Made up."
    dim, frame_s, hop_s = 0, 0.4, 0.1

    def embed(self, audio, sample_rate): ...


class Unlabelled(Flat):
    dim = 2
    label = None


class Unlicensed(Flat):
    dim = 2

    @classmethod
    def unavailable(cls):
        return "no licence here; buy one"


class Moody(Embedding):
    name = "moody"

    def __init__(self, *, device="cpu"):
        raise LookupError("not today")

    def embed(self, audio, sample_rate): ...
"""
METRICS = (
    *("float", "nameless", "licensed", "good", "five", "huge", "double", "column", "counted", "mean"),
    *("heading", "long", "touchy", "silent", "wordy", "unsold", "wordless", "module"),
)
EMBEDDINGS = ("moody", "flat", "unlabelled", "unlicensed")
POINTS = [
    *(
        ("qincodec.codecs", name, f"{name.title()}")
        for name in (
            "raises",
            "nothing",
            "unsure",
            "ending",
            "panic",
            "zero",
            "nan",
            "numpy",
            "ints",
            "generator",
            "fast",
        )
    ),
    *(("qincodec.metrics", name, f"{name.title()}") for name in METRICS),
    *(("qincodec.embeddings", name, f"{name.title()}") for name in EMBEDDINGS),
    *((f"qincodec.{kind}", "absent", "Absent") for kind in ("codecs", "metrics", "embeddings", "quantizers")),
]


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parts above, announced as an installed package announces them."""
    (tmp_path / "odd_plugins.py").write_text(PLUGINS)
    monkeypatch.syspath_prepend(tmp_path)
    found = [EntryPoint(name, f"odd_plugins:{attribute}", group) for group, name, attribute in POINTS]
    monkeypatch.setattr(
        "qincodec.core.plugins.entry_points", lambda group: [point for point in found if point.group == group]
    )


def test_each_plug_in_is_a_line(plugins: None) -> None:
    codecs = {name: status for name, _, status in codec_rows()}
    assert codecs["raises"].startswith("broken: codec 'raises': rates() raises ZeroDivisionError")
    assert codecs["unsure"].startswith("broken: codec 'unsure': unavailable() raises OSError: no licence")
    assert codecs["absent"].startswith("broken: codec 'absent' (odd_plugins:Absent) does not import")
    assert codecs["nothing"] == "broken: codec 'nothing' has no rates for 1 channel(s); leave it out"
    assert codecs["zero"].startswith("broken: codec 'zero': rates() returned Rate(kbps=0); needed are")
    assert codecs["nan"].startswith("broken: codec 'nan': rates() returned Rate(kbps=nan); needed are")
    assert codecs["numpy"] == "ready"
    assert codecs["ending"] == (
        "broken: codec 'ending': rates() raises SystemExit: 0; correct it or leave it out"
    )
    assert "rates() raises BaseException: not an Exception" in codecs["panic"]
    metrics = {row[0]: row[3] for row in metric_rows()}
    assert metrics["si_sdr"] == metrics["good"] == "ready"
    assert metrics["float"] == (
        "broken: metric 'float' returned float; score() must return a list with a Score per item, such as "
        "[Score(1.5)]"
    )
    assert metrics["nameless"].startswith("broken: metric Nameless: 'unit' is None")
    assert metrics["licensed"] == "not here: its licence server does not answer; start it"
    assert metrics["absent"].startswith("broken: metric 'absent'")
    assert metrics["five"].startswith("broken: metric 'five': unavailable() returned 5; needed is a reason")
    assert "returned Score(1e+200, None); the value must be a number from" in metrics["huge"]
    for name, column in (("double", "si_sdr"), ("column", "si_sdr_reason")):
        assert metrics[name].startswith(f"broken: metric '{name}' is named '{column}', the column of another")
    for name, status in {
        "counted": "metric 'counted' is named 'n', the column of another; rename it",
        "mean": "metric 'mean' is named 'si_sdr_ci_low', the column of another; rename it",
        "heading": r"metric Heading: 'label' is 'Two\nlines'; needed is text of one line",
        "long": "metric Long: 'label' is 'LLL",
        "touchy": "metric 'Touchy': an attribute raises ZeroDivisionError: not yet",
        "silent": "metric 'silent': unavailable() raises Speechless: its message cannot be shown",
        "wordy": r"metric 'wordy': score() of noise raises LookupError: a\x00b \ud800xxx",
        "wordless": "metric 'wordless' returned Score(nan, ' '); the value must be a number",
        "module": "metric 'module': unavailable() raises AttributeError: module 'torch' has no",
    }.items():
        assert metrics[name].startswith(f"broken: {status}") and len(metrics[name]) < 1500
    assert metrics["unsold"] == "not here: no licence; buy one"
    assert codecs["ints"] == "broken: codec 'ints': rates() returned [8, 16]; needed is a list, each a Rate"
    assert codecs["generator"].startswith("broken: codec 'generator': rates() returned <generator")
    embeddings = {name: status for name, status, _ in embedding_rows()}
    assert embeddings["logmel"] == "ready" and embeddings["absent"].startswith("broken: embedding 'absent'")
    assert embeddings["flat"].startswith(
        "broken: embedding Flat: 'dim' is 0; needed is a whole number from 1"
    )
    assert embeddings["unlabelled"].startswith(
        "broken: embedding Unlabelled: 'label' is None; needed is text"
    )
    assert embeddings["unlicensed"] == "not here: no licence here; buy one"
    assert embeddings["moody"].startswith("broken: embedding 'moody': definition raises AttributeError")
    quantizers = dict(quantizer_rows())
    assert quantizers["qinco2"] == "ready" and quantizers["absent"].startswith("broken: quantizer 'absent'")
    rows = [*codecs.values(), *metrics.values(), *embeddings.values(), *quantizers.values()]
    assert not any("\n" in row for row in rows)


@pytest.mark.parametrize(
    ("codecs", "metrics", "message"),
    [
        ("raises", "si_sdr", "codec 'raises': rates.* raises ZeroDivisionError"),
        ("nothing", "si_sdr", "codec 'nothing' has no rates for 1 channel"),
        ("unsure", "si_sdr", "codec 'unsure': unavailable.* raises OSError: no licence"),
        ("absent", "si_sdr", "codec 'absent' .* does not import"),
        ("mp3", "absent", "'absent' .* does not import"),
        ("mp3", "nameless", "metric Nameless: 'unit' is None"),
        ("mp3", "licensed", "no metric can be computed here: its licence server does not answer"),
        ("zero", "si_sdr", r"codec 'zero': rates\(\) returned Rate\(kbps=0\); needed are"),
        ("nan", "si_sdr", r"codec 'nan': rates\(\) returned Rate\(kbps=nan\); needed are"),
        ("mp3", "si_sdr,double", "a run folder cannot hold this request: 'metrics' has two entries 'si_sdr'"),
        ("mp3", "si_sdr,column", "metric 'si_sdr_reason' has a column of the name of another's"),
        ("mp3", "five", r"metric 'five': unavailable\(\) returned 5"),
        ("mp3", "flat", "embedding Flat: 'dim' is 0; needed is a whole number from 1"),
        ("mp3", "unlabelled", "embedding Unlabelled: 'label' is None; needed is text"),
        ("mp3", "counted", "metric 'n' has a column of the name of another's"),
        ("mp3", "si_sdr,mean", "metric 'si_sdr_ci_low' has a column of the name of another's"),
        ("mp3", "heading", "metric Heading: 'label' is"),
        ("mp3", "touchy", "metric 'Touchy': an attribute raises ZeroDivisionError: not yet"),
        ("mp3", "silent", r"metric 'silent': unavailable\(\) raises Speechless: its message cannot be shown"),
        ("mp3", "module", r"metric 'module': unavailable\(\) raises AttributeError"),
        ("mp3", "unsold", "no metric can be computed here: no licence; buy one"),
        ("fast", "si_sdr", "codec 'fast': sample_rate must be a whole number from 0 to 1000000"),
        ("ints", "si_sdr", r"codec 'ints': rates\(\) returned \[8, 16\]; needed is a list, each a Rate"),
        ("mp3", "moody", "embedding 'moody': loading it raises LookupError: not today"),
    ],
)
def test_a_plug_in_that_does_not_work_is_one_line(
    codecs: str, metrics: str, message: str, plugins: None, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        evaluate("demo", codecs, [8], metrics=metrics, limit=1, out=tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_metric_that_cannot_run_here_is_left_out_with_the_reason(plugins: None, tmp_path: Path) -> None:
    results = evaluate("demo", "mp3", [8], metrics="good,licensed", limit=1, out=tmp_path / "run")
    assert results.unavailable == {"licensed": "its licence server does not answer; start it"}
    assert results.clips["good"].tolist() == [0.5]
    assert "Unavailable: licensed: its licence server" in (tmp_path / "run" / "table.md").read_text()


def test_an_embedding_that_cannot_run_here_is_left_out_with_the_reason(plugins: None, tmp_path: Path) -> None:
    results = evaluate("demo", "numpy", [8], metrics="si_sdr,unlicensed", limit=1, out=tmp_path / "run")
    assert results.unavailable == {"unlicensed": "no licence here; buy one"}
    assert results.clips["si_sdr"].notna().all() and [c.nominal for c in results.conditions] == [8.0]


@pytest.mark.parametrize("name", _POINTS)
def test_the_operating_points_are_those_of_the_codecs(name: str) -> None:
    assert _POINTS[name] == points(name, None if name.startswith("qincodec") else "untrained:tiny")


def test_the_list_needs_nothing_that_takes_seconds() -> None:
    code = (
        "import sys; sys.argv[1:] = ['list']\n"
        "from evaluation.cli.evaluate import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'transformers', 'pandas', 'scipy', 'matplotlib', 'h5py'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "qincodec" in done.stdout and "si_sdr" in done.stdout
