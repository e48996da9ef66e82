"""What the server's answers tell about a condition: type, size and other headers of all items of a trial."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from nominal import evaluate

from mushra.check import check_config
from mushra.create.documents import Options
from mushra.create.folder import create_test
from mushra.create.material import RunMaterial
from qincodec.core.errors import UserError

RATE = 32000
MUSHRA = """
testname: t
testId: t
pages:
  - {type: mushra, id: one, reference: REF, createAnchor35: true, createAnchor70: true, stimuli: {A: A_}}
  - {type: bs1116, id: two, reference: REF, createAnchor35: true, stimuli: {A: A_}}
  - {type: paired_comparison, id: three, reference: REF, createAnchor70: true, stimuli: {A: A_}}
  - {type: likert_multi_stimulus, id: four, stimuli: {R: REF, A: A_}, response: [{value: "1", label: bad}]}
"""


def noise(seed: int, seconds: float = 1.0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))


def answers(one: Any, page: dict[str, Any]) -> dict[str, Any]:
    """Answer to each request of a page, its reference's among them."""
    signals = [*page["signals"], *([page["reference"]] if page.get("reference") else [])]
    return {signal["url"]: one.client.get("/" + signal["url"]) for signal in signals}


def headers(found: dict[str, Any]) -> set[tuple[tuple[str, str], ...]]:
    """The different headers there are, without what is different for every address."""
    assert {answer.status_code for answer in found.values()} == {200}
    # It holds the second of the request, so that it told files apart whenever a second passed between them.
    assert not any("Expires" in answer.headers for answer in found.values())
    own = ("Date", "ETag")
    return {tuple((k, v) for k, v in answer.headers if k not in own) for answer in found.values()}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("blind")
    for seed in range(2):
        soundfile.write(folder / f"clip{seed}.wav", noise(seed, 2.0), RATE)
    evaluate(
        folder, codecs="mp3", kbps="32", metrics="si_sdr", out=folder / "run", sample_rate=RATE, workers=1
    )
    return folder / "run"


@pytest.mark.parametrize("options", [{}, {"bits": 16}, {"file_format": "flac"}])
def test_items_of_a_trial_have_the_same_headers(
    run: Path, tmp_path: Path, serve: Any, listener: Any, options: dict[str, Any]
) -> None:
    report = create_test(RunMaterial(run), tmp_path / "test", Options(duration_s=1.5, **options))
    key = json.loads((tmp_path / "test" / "key.json").read_text())
    assert not any("FLAC" in warning for warning in report["warnings"])
    one = listener(serve(folder=tmp_path / "test"))
    pages = [page for page in one.pages if page["type"] == "mushra"]
    assert len(pages) == 2
    lengths = []
    for page in pages:
        found = answers(one, page)
        assert len(found) == 5  # the open reference, the hidden one, two anchors, mp3
        (common,) = headers(found)
        assert dict(common)["Content-Type"] == f"audio/{options.get('file_format', 'wav')}"
        lengths.append(int(dict(common)["Content-Length"]))
    # Real webMUSHRA serves these files as they are.
    for trial in key["trials"].values():
        (size,) = {(tmp_path / "test" / s["file"]).stat().st_size for s in trial["signals"].values()}
        assert size in lengths
    assert [f for f in check_config(tmp_path / "test") if f.severity == "error"] == []


@pytest.mark.parametrize(
    ("name", "subtype", "other"),
    [
        ("wav", "PCM_16", "wav"),
        ("wav", "FLOAT", "WAV"),
        ("flac", "PCM_16", "flac"),
        ("flac", "PCM_24", "FLAC"),
    ],
)
def test_anchors_made_by_the_server_are_like_the_other_files(
    tmp_path: Path, serve: Any, listener: Any, name: str, subtype: str, other: str
) -> None:
    folder = tmp_path / "test"
    folder.mkdir()
    reference = noise(0)
    soundfile.write(folder / f"r.{name}", reference, RATE, subtype=subtype)
    with soundfile.SoundFile(
        folder / f"a.{other}", "w", RATE, 1, "PCM_24" if name == "wav" else "PCM_16", format=name.upper()
    ) as file:
        file.title = "codec A"  # tags make a size of their own
        file.write(0.5 * noise(0).round(2))
    (folder / "config.yaml").write_text(MUSHRA.replace("REF", f"r.{name}").replace("A_", f"a.{other}"))
    assert [f for f in check_config(folder) if f.severity == "error" or "differ in" in f.message] == []
    app = serve(folder=folder)
    one = listener(app)
    assert len(one.pages) >= 4
    heard_so = 0
    for page in one.pages:
        if page["type"] == "finish":
            continue
        found = answers(one, page)
        (common,) = headers(found)
        assert dict(common)["Content-Type"] == f"audio/{name}"
        sounds = [soundfile.read(io.BytesIO(answer.data)) for answer in found.values()]
        assert {(len(samples), rate) for samples, rate in sounds} == {(RATE, RATE)}
        for path in (f"r.{name}", f"a.{other}") if page["type"] != "paired_comparison" else ():
            samples, _ = soundfile.read(folder / path)
            heard_so += any(np.array_equal(samples, heard) for heard, _ in sounds)
    assert heard_so == 2 * 2 + 3  # both files on two pages; reference and one more on the pages of BS.1116
    # The results name the test's own files, not padded copies.
    assert f"r.{name}" in app.extensions["mushra"].stimuli.hashes()
    # A restart serves the same bytes.
    again = listener(serve(folder=folder))
    url = one.pages[0]["signals"][0]["url"]
    assert again.client.get("/" + url).data == one.client.get("/" + url).data


def test_files_that_no_anchor_can_be_like(tmp_path: Path, serve: Any) -> None:
    folder = tmp_path / "test"
    folder.mkdir()
    for name, kind in (("r", "wav"), ("r", "ogg"), ("a", "wav"), ("a", "ogg"), ("a", "flac")):
        soundfile.write(folder / f"{name}.{kind}", noise(0), RATE)
    for reference, other, named in (
        ("r.wav", "a.ogg", "a.ogg"),
        ("r.ogg", "a.ogg", "r.ogg"),
        ("r.wav", "a.flac", "a.flac"),
    ):
        text = MUSHRA.replace("REF", reference).replace("A_", other)
        (folder / "config.yaml").write_text(text)
        found = check_config(folder)
        errors = [f.message for f in found if f.severity == "error"]
        assert len(errors) == 3
        assert all(f"their type would differ from that of '{named}'" in message for message in errors)
        with pytest.raises(UserError, match=f"page 'one': anchors are made as WAV or FLAC.*'{named}'"):
            serve(folder=folder)
        (folder / "config.yaml").write_text(text.replace("true", "false"))
        said = [f for f in check_config(folder) if "files differ in" in f.message]
        assert [f.page for f in said] == ([1, 2, 3, 4] if reference == "r.wav" else [])
        assert all(f.severity == "warning" for f in said)
        serve(folder=folder)


def test_compressed_files_of_different_sizes_are_remarked_on(tmp_path: Path) -> None:
    for name, samples in (("r", noise(0)), ("a", 0 * noise(0) + 0.1)):
        soundfile.write(tmp_path / f"{name}.ogg", samples, RATE)
    text = MUSHRA.replace("REF", "r.ogg").replace("A_", "a.ogg").replace("true", "false")
    (tmp_path / "config.yaml").write_text(text)
    said = [f.message for f in check_config(tmp_path) if "files differ in size" in f.message]
    assert len(said) == 4
    assert all("bytes of ogg" in message for message in said)


def test_an_anchor_too_loud_for_flac(tmp_path: Path, serve: Any, listener: Any) -> None:
    folder = tmp_path / "test"
    folder.mkdir()
    square = np.sign(np.sin(2 * np.pi * 100 * np.arange(RATE) / RATE + 0.1))  # its low-pass overshoots
    for kind in ("flac", "wav"):
        for name in "ra":
            soundfile.write(folder / f"{name}.{kind}", square, RATE)
        (folder / "config.yaml").write_text(MUSHRA.replace("REF", f"r.{kind}").replace("A_", f"a.{kind}"))
        errors = [f.message for f in check_config(folder) if f.severity == "error"]
        if kind == "wav":
            assert errors == []
            one = listener(serve(folder=folder))
            assert len(headers(answers(one, one.page("mushra")))) == 1  # the anchor is float, and as large
        else:
            assert len(errors) == 4
            assert "'r.flac': its anchor35 exceeds full scale, which FLAC cannot hold" in errors[0]
            with pytest.raises(UserError, match="exceeds full scale, which FLAC cannot hold"):
                serve(folder=folder)
