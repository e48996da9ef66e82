"""Parts that nobody installed: classes in Python files, and codecs that are objects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from pages import code
from typer.testing import CliRunner

import evaluation.cli.evaluate
import qincodec.cli
from baselines.codec import ClipCodec
from baselines.registry import CODECS
from evaluation import evaluate
from evaluation.embeddings import EMBEDDINGS
from evaluation.engine.plug_ins import digest_of
from evaluation.engine.replay import RunAudio
from evaluation.metrics import METRICS
from evaluation.results import Results
from evaluation.run.store import RunStore
from qincodec.codec import Qincodec, load
from qincodec.core.errors import UserError
from qincodec.core.plugins import add_file
from qincodec.quantizers import QUANTIZERS

REGISTRIES = (CODECS, METRICS, EMBEDDINGS, QUANTIZERS)


@pytest.fixture(autouse=True)
def as_in_a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is added from files is forgotten afterwards."""
    for registry in REGISTRIES:
        monkeypatch.setattr(registry, "_loaded", {})


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The classes of the guides, a file each, in the current folder."""
    for page, name in (
        ("docs/tutorials/own-codec.md", "MuLaw"),
        ("docs/how-to/extend.md", "Loudness"),
        ("docs/how-to/extend.md", "Loudest"),
        ("docs/how-to/extend.md", "Uniform"),
    ):
        (tmp_path / f"my_{name.lower()}.py").write_text(code(page, name))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path


def of_codecs(codecs: object, out: Path, metrics: str = "si_sdr") -> Results:
    return evaluate("demo", codecs, [64], metrics=metrics, limit=2, chunk_s=1, out=out)  # type: ignore[arg-type]


def run(*arguments: str) -> str:
    done = CliRunner().invoke(evaluation.cli.evaluate.app, arguments)
    if isinstance(done.exception, UserError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def test_a_file_scores_as_the_installed_class_does(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = of_codecs(
        ["./my_mulaw.py:MuLaw,again=./my_mulaw.py:MuLaw"],
        files / "given",
        "si_sdr,./my_loudest.py:Loudest,./my_loudness.py:Loudness",
    )
    assert set(given.clips["codec"]) == {"mulaw", "again"}
    assert given.summary[["loudest", "fm_loudness"]].notna().all(axis=None)
    import my_mulaw

    class Installed(my_mulaw.MuLaw):  # type: ignore[misc, name-defined]
        name = "installed"

    other = of_codecs([Installed()], files / "object")
    of = given.clips[given.clips["codec"] == "mulaw"]
    assert other.clips["si_sdr"].tolist() == of["si_sdr"].tolist()


def test_an_object_beside_a_name(files: Path) -> None:
    import my_mulaw

    results = of_codecs([my_mulaw.MuLaw(), "opus"], files / "run")
    assert set(results.clips["codec"]) == {"mulaw", "opus"} and results.clips["error"].isna().all()
    assert "mulaw" not in CODECS, "an object is of one evaluation"

    class Opus(my_mulaw.MuLaw):  # type: ignore[misc, name-defined]
        name = "opus"

    with pytest.raises(UserError, match=r"the object Opus\(\) has the name of codec 'opus'"):
        of_codecs([Opus()], files / "other")


NOTEBOOK = """
from baselines.codec import ClipCodec, Encoded, Rate

class Cell(ClipCodec):
    name, version, sample_rate = "cell", "1", 44100
    def rates(self, channels=1):
        return [Rate(8.0)]
    def encode_clip(self, samples, rate, keep=2):
        return Encoded(bytes(keep), 44100, *samples.shape)
    def decode_clip(self, encoded):
        return None if encoded.channels in {1, 2} else [0 for _ in range(3)]
"""


def test_a_class_of_a_notebook_is_known_by_what_it_does() -> None:
    """Python has neither a file nor a text of it: another session and other lines change nothing."""

    def digest(text: str, file: str = "<cell 1>") -> str:
        namespace = {"__name__": "a notebook"}
        exec(compile(text, file, "exec"), namespace)
        return digest_of(namespace["Cell"]())  # type: ignore[operator]

    first = digest(NOTEBOOK)
    assert digest("\n\n" + NOTEBOOK, "<cell 7>") == first
    for old, new in (("{1, 2}", "{1, 3}"), ("range(3)", "range(4)"), ("keep=2", "keep=3"), ('"1"', '"2"')):
        assert digest(NOTEBOOK.replace(old, new)) != first, new


def test_an_edited_file_never_gets_an_old_score(files: Path) -> None:
    metrics = "./my_loudest.py:Loudest"
    old = of_codecs("./my_mulaw.py:MuLaw", files / "run", metrics)
    loudest = files / "my_loudest.py"
    loudest.write_text(loudest.read_text().replace("20 * value", "10 * value"))
    with pytest.raises(UserError, match=r"version of 'loudest' was 1\+\w{16}, now 1\+.*choose another --out"):
        of_codecs("./my_mulaw.py:MuLaw", files / "run", metrics)
    new = of_codecs("./my_mulaw.py:MuLaw", files / "new", metrics)
    assert new.clips["loudest"].to_numpy() == pytest.approx(old.clips["loudest"].to_numpy() / 2)
    (files / "my_mulaw.py").write_text((files / "my_mulaw.py").read_text().replace("127", "15"))
    with pytest.raises(UserError, match=r"identity of 'mulaw' was .*code.*choose another --out"):
        of_codecs("./my_mulaw.py:MuLaw", files / "new", metrics)


def test_a_report_plays_it_when_told_where_it_is(files: Path) -> None:
    of_codecs("./my_mulaw.py:MuLaw", files / "run")
    CODECS._loaded.clear()  # another process
    with RunStore(files / "run", write=False) as store:
        (condition,) = store.read_run().conditions
        clip = store.read_clips()[0]
        with pytest.raises(UserError, match="mulaw is a codec in a Python file: give it with --plug-in"):
            RunAudio(store).decoded(condition, clip)
        add_file("./my_mulaw.py:MuLaw", CODECS)
        assert abs(RunAudio(store).decoded(condition, clip)).max() > 0.01
        file = files / "my_mulaw.py"
        file.write_text(file.read_text() + "\n")
        add_file("./my_mulaw.py:MuLaw", CODECS)
        with pytest.raises(UserError, match="mulaw was made with another version of its file"):
            RunAudio(store).decoded(condition, clip)
    CODECS._loaded.clear()
    file.write_text(file.read_text()[:-1])
    assert "clips to hear" in run("html", "run", "--plug-in", "./my_mulaw.py:MuLaw", "--clips", "1")


def test_a_model_with_a_quantizer_in_a_file(files: Path) -> None:
    base = load("untrained:tiny")
    kind = QUANTIZERS.load(add_file("./my_uniform.py:Uniform", QUANTIZERS))
    quantizer = kind.for_rate(base.autoencoder.config.latent_dim, 4, 1024)
    quantizer.fit(torch.randn(500, base.autoencoder.config.latent_dim).numpy())
    Qincodec(base.autoencoder, quantizer).save(files / "model")
    QUANTIZERS._loaded.clear()
    with pytest.raises(UserError, match=r"unknown quantizer 'uniform'.*--plug-in FILE.py:CLASS"):
        load("model")
    told = CliRunner().invoke(qincodec.cli.app, ["info", "model", "--plug-in", "./my_uniform.py:Uniform"])
    assert "uniform" in told.output


@pytest.mark.parametrize(
    ("text", "written", "said"),
    [
        ("./a,b/mine.py:MuLaw", None, "'./a' does not name a class of a file; .* neither comma nor ="),
        ("./mine.py", None, "'./mine.py' does not name a class of a file"),
        ("./gone.py:MuLaw", None, "gone.py' cannot be read: No such file"),
        (
            "./mine.py:MuLow",
            "from baselines.codec import ClipCodec, Rate\nclass MuLaw: ...",
            r"has no 'MuLow'; did you mean MuLaw\? its classes are MuLaw$",
        ),
        (
            "./mine.py:MuLaw",
            "class MuLaw: ...",
            "is a class of another kind; give a class of a codec",
        ),
        ("./mine.py:MuLaw", "import nothing_of_this_name", "does not run: ModuleNotFoundError"),
        ("./mine.py:MuLaw", "def", "does not run: SyntaxError"),
        (
            "./mine.py:MuLaw",
            "from baselines.codec import ClipCodec\nclass MuLaw(ClipCodec): name = 'm'",
            "lacks decode_clip, encode_clip, rates",
        ),
        (
            "./mine.py:Opus",
            "from baselines.ffmpeg import Opus as Old\nclass Opus(Old): ...",
            "is a codec of the name 'opus', and so is an installed one; set another 'name' in the class",
        ),
    ],
)
def test_what_is_wrong_with_a_file(files: Path, text: str, written: str | None, said: str) -> None:
    if written is not None:
        (files / "mine.py").write_text(written)
    with pytest.raises(UserError, match=said):
        run("demo", "--codecs", text)


def test_a_file_imports_what_lies_beside_it(files: Path) -> None:
    (files / "law_of_mine.py").write_text("NAME = 'beside'\n")
    (files / "deep").mkdir()
    moved = files / "my_mulaw.py"
    text = moved.read_text().replace(
        'name, version = "mulaw"', "from law_of_mine import NAME as name; version = "
    )
    (files / "beside.py").write_text(text.replace('version = , "1"', 'version = "1"'))
    assert add_file("./beside.py:MuLaw", CODECS) == "beside"
    assert issubclass(CODECS.load("beside"), ClipCodec)
