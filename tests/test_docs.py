"""What the guides say and show, and the site they become; their commands are run by tests/walks."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pages import blocks, code

from qincodec import audio
from qincodec.core.errors import UserError

DOCS = Path(__file__).resolve().parents[1] / "docs"
PACKAGES = ("qincodec", "baselines", "evaluation", "mushra")
RATE = 44_100


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """What the guide to training takes for granted: `recordings`."""
    random = np.random.default_rng(0)
    (tmp_path / "recordings").mkdir()
    for number in range(8):
        seconds = np.arange(6 * RATE) / RATE
        tone = 0.2 * np.sin(2 * np.pi * 220 * 2 ** (number / 12) * seconds) * (1 + np.sin(3 * seconds)) / 2
        sound = (tone + 0.02 * random.standard_normal(len(tone)))[None].astype(np.float32)
        audio.write(tmp_path / "recordings" / f"{number}.wav", sound, RATE)
    return tmp_path


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_trainings_of_the_guide_run_as_they_stand(workplace: Path) -> None:
    """With all of their batches; those of the other guides, and shorter trainings, run in `make walks`."""
    # Neither the network nor a busy machine decides: nothing is downloaded, each command may take its time.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "QINCODEC_CACHE": str(workplace / "cache"), "COLUMNS": "120"}
    environment |= {"QINCODEC_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    trainings = [
        line for block in blocks("docs/tutorials/first-training.md", "sh") for line in block.splitlines()
    ]
    assert trainings
    for command in trainings:
        done = subprocess.run(
            command, shell=True, cwd=workplace, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    """Pages are in the navigation, links and anchors lead somewhere, the names of the API are there."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=DOCS.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = {page: page.read_text(encoding="utf-8") for page in tmp_path.rglob("*.html")}
    commands = pages[tmp_path / "reference" / "commands" / "index.html"]
    assert "evaluate weights fetch" in commands and "--completion-code" in commands
    assert "--chunks first|all" in commands  # a bar within a cell
    # A reader's browser asks no other host for anything.
    for page, text in pages.items():
        loaded = re.findall(
            r"<(?:script|link|img|iframe|source)\b[^>]*(?:src|href)=[\"']?(?:https?:)?//\S+", text
        )
        assert not loaded, f"{page.name}: {loaded}"


def test_the_links_of_readme_lead_somewhere() -> None:
    readme = DOCS.parent / "README.md"
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", readme.read_text(encoding="utf-8")):
        assert (readme.parent / target).exists(), target


def test_every_path_of_the_architecture_is_there() -> None:
    """From the root; in a package's table from the package; beside a path that the same step or row names."""
    root, package = DOCS.parent, DOCS.parent
    missing, seen = [], 0
    for block in re.split(
        r"\n(?=\n|\d+\. |\| )", (DOCS / "explanation" / "architecture.md").read_text(encoding="utf-8")
    ):
        if block.startswith("\n## "):
            package = root
        elif heading := re.fullmatch(r"\n`(\w+/)`", block):
            package = root / heading[1]
        folders = {root, package}
        for name in re.findall(r"`([\w./-]*(?:/|\.py|\.js|\.md))`", block):
            found = [folder / name for folder in sorted(folders) if (folder / name).exists()]
            folders |= {path if path.is_dir() else path.parent for path in found}
            missing += [] if found else [name]
            seen += 1
    assert not missing
    assert seen > 100


def test_the_picture_of_the_architecture_shows_the_imports() -> None:
    picture = (DOCS / "images" / "architecture.svg").read_text(encoding="utf-8")
    shown = set(re.findall(r'<path id="(\w+)-(\w+)"', picture))
    assert "images/architecture.svg" in (DOCS / "explanation" / "architecture.md").read_text(encoding="utf-8")
    sources = {
        name: "\n".join(path.read_text(encoding="utf-8") for path in (DOCS.parent / name).rglob("*.py"))
        for name in PACKAGES
    }
    imports = {
        (lower, higher)
        for lower in PACKAGES
        for higher in PACKAGES
        if lower != higher and re.search(rf"^ *(from|import) {lower}\b", sources[higher], flags=re.MULTILINE)
    }
    assert shown == imports


def test_every_type_of_the_glossary_is_there() -> None:
    names = set(
        re.findall(r"`(?:[a-z]+\.)*([A-Z]\w*[a-z]\w*)\b[^`]*`", (DOCS / "glossary.md").read_text("utf-8"))
    )
    assert len(names) > 10
    files = [path for name in PACKAGES for path in (DOCS.parent / name).rglob("*.py")]
    code = "\n".join(path.read_text(encoding="utf-8") for path in files)
    assert names - set(re.findall(r"^(?:class )?(\w+)(?:[(:]| = )", code, flags=re.MULTILINE)) == set()


def test_no_output_is_cut_off() -> None:
    """What a terminal's edge cuts off leaves a bracket open, or ends in the middle of a known sentence."""
    pages = (DOCS / "how-to" / "evaluate.md", DOCS / "tutorials" / "first-table.md")
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    blocks = [part for part in text.split("```")[1::2] if part.startswith("\n")]
    assert len(blocks) == 4
    for block in blocks:
        assert block.count("(") == block.count(")") and block.count("[") == block.count("]"), block
        assert max(map(len, block.splitlines())) <= 118
    means = " ".join(blocks[-1].split("Means over", 1)[1].split())
    assert means.endswith("not corrected for the number of rows")


def test_what_evaluate_takes_from_python_is_told() -> None:
    """Names and defaults of the table, against the signatures."""
    from evaluation import evaluate
    from evaluation.datasets import load_dataset

    page = (DOCS / "reference" / "python.md").read_text(encoding="utf-8")
    section = page.split("## From Python")[1].split("\n## ")[0]
    rows = [row.split("|")[1:3] for row in section.splitlines() if row.startswith("| `")]
    told = {}
    for names, values in rows:
        found = re.findall(r"`(\w+)`", names), re.findall(r"`([^`]+)`", values) or ["nothing"]
        told |= dict(zip(*found, strict=True))
    own, more = (inspect.signature(function).parameters for function in (evaluate, load_dataset))
    options = ("shard", "recording_pattern", "audiocaps_list", "allow_resampled")
    defaults = {name: of.default for name, of in own.items() if of.kind is not of.VAR_KEYWORD}
    defaults |= {name: more[name].default for name in options}
    shown = {name: repr(value).replace("'", '"') for name, value in defaults.items() if name != "progress"}
    assert told == shown | {"progress": "nothing"}


def test_the_examples_of_extend_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from evaluation.metrics.base import Metric, describe_metric

    for name in ("Uniform", "Loudest"):
        (tmp_path / f"my_{name.lower()}.py").write_text(code("docs/how-to/extend.md", name))
    monkeypatch.syspath_prepend(str(tmp_path))
    from my_loudest import Loudest  # type: ignore[import-not-found]
    from my_uniform import Uniform  # type: ignore[import-not-found]

    latents = torch.randn(1000, 4, generator=torch.Generator().manual_seed(0))
    quantizer = Uniform.for_rate(4, num_codebooks=2, codebook_size=64)
    quantizer.fit(latents)
    codes = quantizer.encode(latents)
    # 12 bits over 4 dimensions: 8 levels, and inside the range at most half a step of error.
    assert quantizer.codebook_sizes == (8,) * 4
    assert ((quantizer.decode(codes) - latents).abs() <= quantizer.step / 2 + 1e-6).all()
    again = Uniform.from_config(quantizer.config())
    again.load_state_dict(quantizer.state_dict())
    assert torch.equal(again.decode(codes), quantizer.decode(codes))
    reference = torch.zeros(2, 1, 100)
    decoded = reference.clone()
    decoded[1, 0, 5] = 0.1
    assert [round(s.value) for s in Loudest().score(reference, decoded, RATE)] == [-180, -20]
    for name in ("name", "label", "version", "unit", "higher_is_better", "definition"):
        lacking = type("Lacking", (Metric,), {n: of for n, of in vars(Loudest).items() if n != name})
        with pytest.raises(UserError, match=f"metric Lacking: '{name}' is missing; set it in the class"):
            describe_metric(lacking())


def test_a_codec_with_weights_of_the_guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs with random weights and with a file, its file is listed, and lies in the cache like ours."""
    import torch

    from baselines import check_codec, weights

    monkeypatch.setattr(weights, "FILES", dict(weights.FILES))
    monkeypatch.setenv("QINCODEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("QINCODEC_OFFLINE", "1")
    (tmp_path / "my_blockvq.py").write_text(code("docs/how-to/extend.md", "BlockVq"))
    monkeypatch.syspath_prepend(str(tmp_path))
    from my_blockvq import BlockVq  # type: ignore[import-not-found]

    codec = BlockVq(weights="untrained")
    assert codec.version == "1-untrained"
    check_codec(codec, lengths=(1, 333))
    assert "evaluate weights fetch block-vq" in str(BlockVq.unavailable())
    assert weights.entry("block-vq").licence == "MIT"
    path = weights.cached_path("block-vq")
    path.parent.mkdir(parents=True)
    torch.save({"weight": torch.full((256, 8), 0.25)}, path)
    released = BlockVq()
    (clip,) = released.encode(torch.randn(1, 1, 100), released.rates()[0])
    assert torch.equal(released.decode([clip]), torch.full((1, 1, 100), 0.25))
    assert clip.kbps == pytest.approx(16, rel=0.05)
    with pytest.raises(UserError, match=r"block-vq has weights 'block-vq'.*take other names"):
        weights.add(replace(weights.entry("block-vq"), name="other"))


def test_the_table_of_codecs() -> None:
    """Every codec is in it, with its sample rate and the licence of its weights."""
    from baselines import weights
    from baselines.registry import CODECS

    text = (DOCS / "reference" / "codecs.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| `")]
    seen = []
    for names, _, hertz, licence, needs in rows:
        for name in re.findall(r"`([\w-]+)`", names):
            kind = CODECS.load(name)
            seen.append(name)
            licences = {file.licence for file in weights.files_of(name)}
            assert licences in ({licence}, set()) and (licences or licence in ("none", "shipped, CC BY 4.0"))
            given, out = getattr(kind, "sample_rate", 0), vars(kind).get("output_sample_rate")
            shown = f"{given / 1000:g}" + (f", {out / 1000:g} out" if out else "")
            assert hertz in ([shown] if given else ["any", "44.1"])  # QINCODEC's is its model's
            since = getattr(kind, "since", "5")
            assert ("[snac]" in needs) == name.startswith("snac")
            assert (f"transformers {since} " in needs) == (since != "5")
    # Not those that tests of this process have added.
    own = [name for name in CODECS.names() if CODECS.load(name).__module__.startswith("baselines.")]
    assert sorted(seen) == sorted(own)
