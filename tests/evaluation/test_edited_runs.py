"""Run folders that were edited or damaged: a message of one line or a result, never a traceback."""

from __future__ import annotations

import json
import random
import shutil
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from known import StepCodec, register_codecs
from mutations import little_memory
from nominal import evaluate

from evaluation import open_results
from evaluation.report import write_all
from evaluation.report.compare import compare_runs, render_comparison
from evaluation.report.files import _summary_json
from evaluation.report.html import write_html
from evaluation.report.markup import latex, markdown
from evaluation.report.notes import notes
from evaluation.report.tables import all_tables, caption, compact_table
from evaluation.results import Results
from evaluation.run.merge import merge_runs
from evaluation.statistics.recordings import bd_rate, paired_tests
from qincodec.core.errors import UserError

NAMES = ("run.json", "rows/rank-0.jsonl", "clips.jsonl", "files.json", "environment.json")
VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**40, -(2**63), 10**400, 0.5, 1e-300, 1e308, float("inf"), float("nan")),
    *("", "x", "inf", "-inf", "nan", "../../x", "/etc/passwd", "a\nb", "\0", "\ud800", "\u2028", "x" * 5000),
    *(
        [],
        {},
        [None],
        [[]],
        {"": None},
        {"name": "x"},
        [1e308, 1e308],
        ["a", "b"],
        "coded",
        "score",
        "frames",
    ),
]


@pytest.fixture(scope="module")
def finished(clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run of two codecs, a control, two rates and an embedding."""
    with pytest.MonkeyPatch.context() as patch:
        register_codecs(patch, StepCodec)
        folder = tmp_path_factory.mktemp("runs") / "run"
        evaluate(
            clip_folder,
            "steps,mp3,reference",
            [8, 12],
            conditions={"mine@8": clip_folder},
            metrics="si_sdr,ms_mel,logmel",
            limit=4,
            out=folder,
        )
        yield folder


def everything_of(results: Results) -> None:
    """Compute everything for a report, a comparison and a page, without drawing."""
    summary = results.summary
    tests, rates = paired_tests(results, seed=0, num_resamples=50), bd_rate(results, summary)
    lines = [note.text for note in notes(results, summary)]
    _summary_json(results, summary, tests, rates, lines)
    tables = all_tables(results, summary)
    markdown(tables, lines)
    latex(compact_table(results, summary), caption(results, summary), lines)


def mutated(data: bytes, chance: random.Random) -> bytes:
    """The text of a file with bytes changed, or with a place of its JSON changed."""
    if chance.random() < 0.1 or not data.strip():
        damaged = bytearray(data or b"{}")
        for _ in range(chance.choice((1, 1, 3))):
            at = chance.randrange(len(damaged))
            damaged[at : at + chance.choice((0, 1, 8))] = chance.randbytes(chance.choice((0, 1, 4)))
        return bytes(damaged[: chance.choice((len(damaged), len(damaged), chance.randrange(len(damaged))))])
    lines = data.split(b"\n") if data.lstrip().count(b"\n{") else [data]
    number = chance.randrange(len(lines))
    while not lines[number].strip():
        number = chance.randrange(len(lines))
    content = json.loads(lines[number])
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        for key in value if isinstance(value, dict) else range(len(value)):
            places.append((value, key))
            if isinstance(value[key], dict | list):
                walk(value[key])

    walk(content)
    if not places or chance.random() < 0.02:
        content = chance.choice(VALUES)
    for holder, key in chance.sample(places, min(len(places), chance.choice((1, 1, 1, 2, 5)))):
        what = chance.random()
        if isinstance(holder, dict) and what < 0.25:
            holder.pop(key, None)
        elif isinstance(holder, list) and what < 0.25:
            holder[:] = [*holder[: key + 1], *holder[key : key + 1], *holder[key + 1 :]]
        elif key in holder or (isinstance(holder, list) and key < len(holder)):
            value = holder[key]
            if isinstance(value, int | float) and not isinstance(value, bool) and what < 0.5:
                holder[key] = chance.choice((-value, value * 10**6, value + 1, value / 3))
            else:
                holder[key] = chance.choice(VALUES)
    lines[number] = json.dumps(content).encode()
    return b"\n".join(lines)


def copy_of(run: Path, folder: Path) -> Path:
    """A run whose large files are links."""
    shutil.copytree(run, folder, copy_function=lambda a, b: Path(b).symlink_to(a), dirs_exist_ok=True)
    for name in NAMES:
        (folder / name).unlink()
        shutil.copyfile(run / name, folder / name)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "count", [60, pytest.param(10_000, marks=[pytest.mark.long, pytest.mark.timeout(7200)])]
)
@little_memory()
def test_edited_runs_are_refused_in_a_line_or_read(finished: Path, tmp_path: Path, count: int) -> None:
    folder = copy_of(finished, tmp_path / "run")
    sound = {name: (finished / name).read_bytes() for name in NAMES}
    base = open_results(finished)
    told = read = 0
    failures: list[str] = []
    for seed in range(count):
        chance = random.Random(seed)
        name = chance.choice(NAMES)
        (folder / name).write_bytes(mutated(sound[name], chance))
        try:
            results = open_results(folder)
            everything_of(results)
            if seed % 2:
                render_comparison(compare_runs(base, results, num_resamples=50))
            else:
                merge_runs(tmp_path / "merged", [folder])
                open_results(tmp_path / "merged")
            if read % 30 == 0:
                write_all(results, folder)
                write_html(folder, tmp_path / "page", clips=1)
            read += 1
        except UserError as error:
            told += 1
            if "\n" in str(error) or not str(error).strip():
                failures.append(f"seed {seed}, {name}: no single line: {error}")
        except Exception as error:
            places = [
                f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)
            ]
            failures.append(f"seed {seed}, {name}: {error!r:.200} at {' '.join(places[-4:])}")
        finally:
            shutil.rmtree(tmp_path / "merged", ignore_errors=True)
            (folder / name).write_bytes(sound[name])
    assert not failures, "\n".join(failures[:20])
    assert told > count / 4 and read > count / 10, (told, read)


@pytest.mark.parametrize(
    ("part", "edits", "said"),
    [
        ("metrics", {"embedding": "a\nb"}, "embedding 'a\\nb' of metric"),
        ("metrics", {"name": "a\nb", "per_clip": False}, "the name of metric 'a\\nb' does not fit"),
        ("conditions", {"codec": "a\nb", "kbps": 8}, "'conditions' has two entries 'a\\nb' at 8"),
    ],
)
def test_names_of_several_lines_are_refused_in_one(
    finished: Path, tmp_path: Path, part: str, edits: dict[str, Any], said: str
) -> None:
    folder = copy_of(finished, tmp_path / "run")
    run = json.loads((folder / "run.json").read_text())
    for entry in run[part][:2]:
        entry.update(edits)
        if part == "metrics":
            break
    (folder / "run.json").write_text(json.dumps(run))
    with pytest.raises(UserError) as caught:
        open_results(folder)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("edited", "said"),
    [
        # Any name with `per_clip` false passed for a metric of an embedding.
        (
            lambda metrics: [{**m, "name": m["name"].replace("fd_logmel", "inf")} for m in metrics],
            "metric 'inf'",
        ),
        (lambda metrics: [m for m in metrics if m["name"] != "fd_logmel"], "without its metric 'fd_logmel'"),
    ],
)
def test_an_embedding_without_its_frechet_distance_is_refused(
    finished: Path, tmp_path: Path, edited: Callable[[list[Any]], list[Any]], said: str
) -> None:
    folder = copy_of(finished, tmp_path / "run")
    run = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**run, "metrics": edited(run["metrics"])}))
    with pytest.raises(UserError, match=f"run.json is damaged: .*{said}"):
        open_results(folder)


def test_a_shortened_list_of_clips_is_refused(finished: Path, tmp_path: Path) -> None:
    """A list cut at the end of a line would give means over other clips without a message."""
    folder = copy_of(finished, tmp_path / "run")
    lines = (folder / "clips.jsonl").read_text().splitlines(keepends=True)
    (folder / "clips.jsonl").write_text("".join(lines[:2]))
    with pytest.raises(UserError, match=f"clips.jsonl lists 2 clips, run.json says {len(lines)}.*again"):
        open_results(folder)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (float("nan"), "its frames contain NaN or infinity"),
        (float("inf"), "its frames contain NaN or infinity"),
        (0.0, "its frames have changed"),
    ],
)
def test_overwritten_frames_are_reported(finished: Path, tmp_path: Path, value: float, why: str) -> None:
    folder = copy_of(finished, tmp_path / "run")
    path = folder / "embeddings" / "logmel" / "rank-0.f32"
    frames = np.fromfile(path, "<f4")
    path.unlink()
    np.full_like(frames, value).tofile(path)
    # Results of all frames are kept in rows: without them they would not be computed from the file.
    rows = (folder / "rows" / "rank-0.jsonl").read_text().splitlines(keepends=True)
    (folder / "rows" / "rank-0.jsonl").write_text("".join(r for r in rows if '"kind":"corpus"' not in r))
    with pytest.raises(UserError, match=rf"rank-0.f32 is damaged at byte \d+: {why}.*delete it"):
        open_results(folder)
