"""`evaluate list`: fast, with a line for every plug-in that does not work."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from known import announce
from nominal import evaluate

from evaluation.cli.listing import _POINTS, codec_rows, embedding_rows, metric_rows, points, quantizer_rows
from qincodec.core.errors import UserError

PLUGINS = """
import numpy as np
import torch
from known import StepCodec

from baselines.codec import Codec, Rate
from evaluation.embeddings.base import Embedding
from evaluation.metrics.base import Metric, Score
from qincodec.core.errors import Unavailable


def raising(error):
    def method(*_, **__):
        raise error

    return method


def another(title, base, **changes):
    globals()[title] = type(title, (base,), changes)


class Raises(Codec):
    name, version, sample_rate = "raises", "1", 44100

    def rates(self, channels=1):
        return [Rate(1 / 0)]

    def encode(self, audio, rate): ...

    def decode(self, encoded): ...


class Generator(Raises):
    def rates(self, channels=1):
        yield Rate(8.0)


another("Nothing", Raises, rates=lambda self, channels=1: [])
another("Unsure", Raises, unavailable=classmethod(raising(OSError("no\\nlicence"))))
another("Ending", Raises, rates=raising(SystemExit(0)))
another("Panic", Raises, rates=raising(BaseException("not an Exception")))
another("Ints", Raises, rates=lambda self, channels=1: [8, 16])
another("Zero", Raises, rates=lambda self, channels=1: [Rate(0.0)])
another("Nan", Raises, rates=lambda self, channels=1: [Rate(float("nan"))])
another("Fast", StepCodec, sample_rate=10**9)
another("Still", StepCodec, output_sample_rate=0)
another("Anonymous", StepCodec, identity=raising(OSError("no licence file")))
another("Device", StepCodec, identity=lambda self: {"device": torch.device("cpu")})
another("Infinite", StepCodec, identity=lambda self: {"gain": float("inf")})
another("Listed", StepCodec, identity=lambda self: ["name"])
another("Unsettled", StepCodec, rates=lambda self, channels=1: [Rate(8.0, {"bits": torch.ones(1)})])
another("Deaf", StepCodec, channels=None)
another("Unreached", StepCodec, rate_at=raising(ZeroDivisionError("division by zero")))
another("Loose", StepCodec, rate_at=lambda self, kbps, channels=1: kbps)
another("Drawn", StepCodec, rate_at=lambda self, kbps, channels=1: Rate(float("nan")))
another("Numpy", StepCodec, rates=lambda self, channels=1: [Rate(np.float32(8), {"bits": 8})])


class Float(Metric):
    name, label, version, unit, higher_is_better = "float", "Float", "1", "", True
    definition = "Made up."

    def score(self, prepared, decoded, sample_rate):
        return [0.5] * len(decoded)


class Good(Float):
    name = "good"

    def score(self, prepared, decoded, sample_rate):
        return [Score(torch.tensor(0.5))] * len(decoded)


class Touchy(Good):
    @property
    def label(self):
        raise ZeroDivisionError("not yet")


class Speechless(Exception):
    def __str__(self):
        raise ValueError


another("Nameless", Float, unit=None)
without = classmethod(lambda cls: "its licence server does not answer; start it")
another("Licensed", Float, name="licensed", unavailable=without)
another("Five", Float, name="licensed", unavailable=classmethod(lambda cls: 5))
another("Huge", Good, name="huge", score=lambda self, prepared, decoded, rate: [Score(1e200)] * len(decoded))
another("Double", Good, name="si_sdr")
another("Column", Good, name="si_sdr_reason")
another("Counted", Good, name="n")
another("Mean", Good, name="si_sdr_ci_low")
another("Heading", Good, label="Two\\nlines")
another("Long", Good, label="L" * 1000)
another("Silent", Good, unavailable=classmethod(raising(Speechless())))
another("Wordy", Good, name="wordy", score=raising(LookupError("a\\0b\\n\\ud800" + "x" * 10**6)))
another("Unsold", Good, unavailable=classmethod(raising(Unavailable("no licence;\\nbuy one"))))
blank = [Score(float("nan"), "  ")]
another("Wordless", Good, name="wordless", score=lambda self, prepared, decoded, rate: blank * len(decoded))
Module = torch


class Flat(Embedding):
    name = label = version = "flat"
    definition = "Made up."
    dim, frame_s, hop_s = 0, 0.4, 0.1

    def embed(self, audio, sample_rate): ...


class Moody(Embedding):
    name = "moody"

    def __init__(self, *, device="cpu"):
        raise LookupError("not today")

    def embed(self, audio, sample_rate): ...


another("Unlabelled", Flat, dim=2, label=None)
another("Unlicensed", Flat, dim=2, unavailable=classmethod(lambda cls: "no licence here; buy one"))
"""
#: What the list says of each, or how that begins.
LISTED = {
    "codecs": {
        "raises": "broken: codec 'raises': rates() raises ZeroDivisionError",
        "nothing": "broken: codec 'nothing' has no rates for 1 channel(s); leave it out",
        "unsure": "broken: codec 'unsure': unavailable() raises OSError: no licence",
        "ending": "broken: codec 'ending': rates() raises SystemExit: 0; correct it or leave it out",
        "panic": "broken: codec 'panic': rates() raises BaseException: not an Exception",
        "zero": "broken: codec 'zero': rates() returned Rate(kbps=0); kbps must be",
        "nan": "broken: codec 'nan': rates() returned Rate(kbps=nan); kbps must be",
        "numpy": "ready",
        "ints": "broken: codec 'ints': rates() returned [8, 16]; it must return a list of Rate",
        "generator": "broken: codec 'generator': rates() returned <generator",
        "fast": "broken: codec 'fast': sample_rate must be a whole number from 0 to 1000000, got 1000",
        "still": "broken: codec 'still': output_sample_rate must be a whole number from 1 to 1000000, got 0",
        "deaf": "broken: codec 'deaf': channels is None; it must be (1,), (2,) or (1, 2)",
        "anonymous": "broken: codec 'anonymous': identity() raises OSError: no licence file; correct it",
        "device": "broken: codec 'device': identity(): TypeError: Object of type device is not JSON",
        "infinite": "broken: codec 'infinite': identity(): ValueError: Out of range float values are not",
        "listed": "broken: codec 'listed': identity() is ['name']; it must be a dict of finite JSON values",
        "unsettled": "broken: codec 'unsettled': rates(): settings: TypeError: Object of type Tensor",
        "unreached": "broken: codec 'unreached': rate_at() raises ZeroDivisionError: division by zero",
        "loose": "broken: codec 'loose': rate_at(0.001) returned 0.001; it must return a Rate or None",
        "drawn": "broken: codec 'drawn': rate_at(0.001) returned Rate(kbps=nan); kbps",
        "absent": "broken: codec 'absent' (odd_plugins:Absent) does not import",
    },
    "metrics": {
        "si_sdr": "ready",
        "good": "ready",
        "float": "broken: metric 'float' returned float; score() must return a list with a Score per item, "
        "such as [Score(1.5)]",
        "nameless": "broken: metric Nameless: 'unit' is None",
        "licensed": "not here: its licence server does not answer; start it",
        "five": "broken: metric 'five': unavailable() returned 5; it must return a reason",
        "huge": "broken: metric 'huge' returned Score(1e+200, None); the value must be a number from",
        "double": "broken: metric 'double' is named 'si_sdr', the column of another",
        "column": "broken: metric 'column' is named 'si_sdr_reason', the column of another",
        "counted": "broken: metric 'counted' is named 'n', the column of another; rename it",
        "mean": "broken: metric 'mean' is named 'si_sdr_ci_low', the column of another; rename it",
        "heading": r"broken: metric Heading: 'label' is 'Two\nlines'; it must be text of one line",
        "long": "broken: metric Long: 'label' is 'LLL",
        "touchy": "broken: metric 'Touchy': an attribute raises ZeroDivisionError: not yet",
        "silent": "broken: metric 'silent': unavailable() raises Speechless: its message cannot be shown",
        "wordy": r"broken: metric 'wordy': score() of noise raises LookupError: a\x00b \ud800xxx",
        "unsold": "not here: no licence; buy one",
        "wordless": "broken: metric 'wordless' returned Score(nan, ' '); the value must be a number",
        "module": "broken: metric 'module': unavailable() raises AttributeError: module 'torch' has no",
        "absent": "broken: metric 'absent' (odd_plugins:Absent) does not import",
    },
    "embeddings": {
        "logmel": "ready",
        "moody": "broken: embedding 'moody': definition raises AttributeError",
        "flat": "broken: embedding Flat: 'dim' is 0; it must be a whole number from 1",
        "unlabelled": "broken: embedding Unlabelled: 'label' is None; it must be text",
        "unlicensed": "not here: no licence here; buy one",
        "absent": "broken: embedding 'absent'",
    },
    "quantizers": {"qinco2": "ready", "absent": "broken: quantizer 'absent'"},
}
OURS = ("si_sdr", "logmel", "qinco2")


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parts above, announced by entry points like those of an installed package."""
    (tmp_path / "odd_plugins.py").write_text(PLUGINS)
    monkeypatch.syspath_prepend(tmp_path)
    announce(
        monkeypatch,
        *(
            EntryPoint(name, f"odd_plugins:{name.title()}", f"qincodec.{kind}")
            for kind, names in LISTED.items()
            for name in names
            if name not in OURS
        ),
    )


def test_each_plug_in_is_a_line(plugins: None) -> None:
    found = {
        "codecs": {name: status for name, _, status in codec_rows()},
        "metrics": {row[0]: row[3] for row in metric_rows()},
        "embeddings": {name: status for name, status, _ in embedding_rows()},
        "quantizers": dict(quantizer_rows()),
    }
    for kind, names in LISTED.items():
        for name, status in names.items():
            said = found[kind][name]
            assert said == status if status == "ready" else said.startswith(status)
            assert "\n" not in said and len(said) < 1500


def test_a_codec_without_weights_is_a_short_line_that_ends_in_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QINCODEC_CACHE", str(tmp_path))
    monkeypatch.delenv("QINCODEC_OFFLINE", raising=False)
    found = {name: row for name, *row in codec_rows()}
    fetch = "evaluate weights fetch"
    assert found["dac"] == [_POINTS["dac"], f"not here: no weights; {fetch} dac-8kbps dac-16kbps"]
    assert found["mimi"] == [_POINTS["mimi"], f"not here: no weights; {fetch} mimi"]


def test_a_part_whose_name_is_taken_is_a_line_of_its_own(
    plugins: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = {"codecs": "opus", "metrics": "si_sdr", "embeddings": "logmel", "quantizers": "rvq"}
    found = [EntryPoint(name, "odd_plugins:Taken", f"qincodec.{kind}") for kind, name in taken.items()]
    twice = [EntryPoint("twice", f"odd_plugins:{part}", "qincodec.metrics") for part in ("Good", "Wordy")]
    announce(monkeypatch, *found, *twice)
    why = "ignored: odd_plugins:Taken has the name of the project's own; give its entry point another one"
    codecs = [row for row in codec_rows() if row[0] == "opus"]
    assert codecs[0][2] == "ready" and codecs[1:] == [("opus", "", why)]
    metrics = [row for row in metric_rows() if row[0] in ("si_sdr", "twice")]
    assert [row[3] for row in metrics] == [
        *("ready", metrics[1][3], why),
        "ignored: odd_plugins:Good has the name of odd_plugins:Wordy; give its entry point another one",
    ]
    assert ("logmel", why, "") in embedding_rows() and ("rvq", why) in quantizer_rows()


#: What cannot be listed cannot be asked for, and `evaluate` says why in the same words.
SAME_WORDS = {
    "codecs": (
        *("nothing", "unsure", "zero", "nan", "ints", "absent", "fast", "deaf"),
        *("device", "infinite", "listed", "unsettled"),
    ),
    "metrics": (
        *("nameless", "licensed", "five", "heading", "touchy", "silent", "module", "unsold", "absent"),
        *("flat", "unlabelled"),
    ),
}


@pytest.mark.parametrize(
    ("codecs", "metrics", "message"),
    [
        *((name, "si_sdr", LISTED["codecs"][name]) for name in SAME_WORDS["codecs"]),
        *(("mp3", name, (LISTED["embeddings"] | LISTED["metrics"])[name]) for name in SAME_WORDS["metrics"]),
        ("raises", "si_sdr", "codec 'raises': rates() or identity() raises ZeroDivisionError"),
        ("ending", "si_sdr", "codec 'ending': rates() or identity() raises SystemExit: 0"),
        ("mp3", "licensed", "no metric can be computed here: its licence server does not answer"),
        ("mp3", "si_sdr,double", "a run folder cannot hold this request: 'metrics' has two entries 'si_sdr'"),
        ("mp3", "si_sdr,column", "metric 'si_sdr_reason' and another have a column of the same name"),
        ("mp3", "counted", "metric 'n' and another have a column of the same name"),
        ("mp3", "si_sdr,mean", "metric 'si_sdr_ci_low' and another have a column of the same name"),
        ("anonymous", "si_sdr", "codec 'anonymous': rates() or identity() raises OSError: no licence file"),
        ("mp3", "moody", "embedding 'moody': loading it raises LookupError: not today"),
    ],
)
def test_a_plug_in_that_does_not_work_is_one_line(
    codecs: str, metrics: str, message: str, plugins: None, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        evaluate("demo", codecs, [8], metrics=metrics, limit=1, out=tmp_path / "run")
    assert message.removeprefix("broken: ").removeprefix("not here: ") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_what_cannot_run_here_is_left_out_with_the_reason(plugins: None, tmp_path: Path) -> None:
    results = evaluate(
        "demo", "numpy", [8], metrics="good,licensed,unlicensed", limit=1, out=tmp_path / "run"
    )
    assert results.unavailable == {
        "licensed": "its licence server does not answer; start it",
        "unlicensed": "no licence here; buy one",
    }
    assert results.clips["good"].tolist() == [0.5] and [c.nominal for c in results.conditions] == [8.0]
    assert "Unavailable: licensed: its licence server" in (tmp_path / "run" / "table.md").read_text()


def test_the_range_of_rates_to_search_is_listed() -> None:
    """AAC's begins at half of its lowest bitrate; MP3 has only the rates of its table."""
    assert points("aac").endswith(" kbps at 44.1 kHz; to match measured rates any from 4 to 160")
    assert points("mp3").endswith("... 320 kbps at 44.1 kHz")


@pytest.mark.parametrize("name", _POINTS)
def test_the_operating_points_are_those_of_the_codecs(name: str) -> None:
    assert _POINTS[name] == points(name, None if name.startswith("qincodec") else "untrained:tiny")
