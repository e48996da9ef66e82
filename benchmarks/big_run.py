"""What a run of a million clips takes, from a smaller one: rows without audio, everything else as it is.

``python benchmarks/big_run.py --clips 4000`` writes the store of a complete run with made-up scores at a
quarter, half and all of that size, and measures in a process each, for time and peak memory: writing rows,
encoded clips as files and, as large runs do, in tar files, planning, resuming (everything is there: what a
run costs besides coding and scoring), loading, the summary with its intervals, all tables, and merging. It
prints the CPU time of each per clip and condition, how it grows (time ~ clips^x; 1 is what can be
extrapolated), and what a million clips would take, by the clock as well. The folder goes again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from baselines.codec import Encoded
from evaluation.datasets.base import Clip, Dataset
from evaluation.engine.conditions import PreparedCondition
from evaluation.engine.request import ParsedRequest, Request
from evaluation.engine.runner import PreparedRun, Runner
from evaluation.records import Condition, MetricInfo, Settings
from evaluation.rows import CodedRow, Place, Row, ScoreRow
from evaluation.run import encoded as encoded_clips
from evaluation.run.manifest import RunDescription, describe_dataset
from evaluation.run.store import RunStore, coded_key, score_key

_METRICS = ("si_sdr", "ms_mel")
_ROWS_AT_ONCE = 8 * (1 + len(_METRICS))  # a batch of clips, as the runner writes them
_SYNCS = 50
_ENCODED = Encoded(bytes(5000), 44100, 1, 5 * 44100).to_bytes()  # at 8 kbps
_SCORED: dict[str, Any] = {"error": None, "reason": None}
_CODED: dict[str, Any] = {"error": None, "duration_s": 5.0, "bytes": 5000, "gain_db": -0.0123456789012345}
_CODED |= {"encode_s": 0.0123456789, "decode_s": 0.0123456789}


def clips_of(count: int, per_recording: int) -> list[Clip]:
    return [
        Clip(
            id=f"{index // 1000:04d}/clip-{index:07d}",
            path=Path(f"/data/{index // 1000:04d}/clip-{index:07d}.wav"),
            recording=f"recording-{index // per_recording:07d}",
            content_hash=f"{index:016x}",
            duration_s=5.0,
            sample_rate=44100,
            channels=1,
        )
        for index in range(count)
    ]


def conditions_of(count: int) -> list[Condition]:
    identity = {"name": "made-up", "version": "1", "weights": "0123456789abcdef", "device": "cpu"}
    return [
        Condition(f"codec{i}", 8.0, 8.0, settings={"num_codebooks": 8}, identity={**identity, "number": i})
        for i in range(count)
    ]


def metrics_of() -> list[Any]:
    from evaluation.metrics import METRICS

    return [METRICS.load(name)() for name in _METRICS]


def write(folder: Path, clips: list[Clip], conditions: list[Condition]) -> None:
    """The store of a complete run."""
    settings = Settings()
    infos = [MetricInfo(m.name, m.label, m.version, m.unit, m.higher_is_better, "") for m in metrics_of()]
    random = np.random.default_rng(0)
    with RunStore(folder) as store:
        store.write_clips(clips)
        store.write_environment({})
        dataset = describe_dataset(Dataset("big", clips))
        store.write_run(
            RunDescription(
                settings=settings, dataset=dataset, conditions=tuple(conditions), metrics=tuple(infos)
            )
        )
        rows: list[Row] = []
        for condition in conditions:
            values = random.normal(10, 3, len(clips)).tolist()
            for number, (clip, value) in enumerate(zip(clips, values, strict=True)):
                key = coded_key(condition, settings, clip)
                place: dict[str, Any] = {"codec": condition.codec, "rate": "8", "clip": clip.id, "delay": 0}
                kept = Place(f"encoded/{condition.codec}@8/clips-00000.tar", 512 + 6144 * number)
                rows.append(CodedRow(key=key, **_CODED, **place).at(kept))
                for info in infos:
                    score = score_key(key, info, 0)
                    rows.append(ScoreRow(key=score, metric=info.name, value=value, **_SCORED, **place))
                if len(rows) >= _ROWS_AT_ONCE:
                    store.append(rows)
                    rows = []
        store.append(rows)


def keep_encoded(store: RunStore, clips: list[Clip], conditions: list[Condition]) -> list[CodedRow]:
    """The rows of clips whose encoded bytes are kept."""
    return [
        CodedRow(key=clip.id, codec=condition.codec, rate="8", clip=clip.id, delay=0, **_CODED).at(
            store.write_encoded(condition.point, clip.id, _ENCODED, known=Place())
        )
        for condition in conditions
        for clip in clips
    ]


def read_encoded(store: RunStore, rows: list[CodedRow]) -> None:
    for row in rows:
        store.read_encoded(row)


# Each phase runs in a process of its own and gives (what, seconds, CPU seconds, peak) for each of its steps.


def run_phase(name: str, folder: Path, count: int, num_conditions: int, per_recording: int) -> None:
    import evaluation.report  # its imports are no part of any step
    from evaluation.loading import load_results
    from evaluation.run.merge import merge_runs

    clips, conditions = clips_of(count, per_recording), conditions_of(num_conditions)
    steps: list[tuple[str, float, float, float]] = []

    def measured(what: str, work: Callable[[], Any]) -> Any:
        start, cpu = time.perf_counter(), time.process_time()
        result = work()
        cpu = time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        steps.append((what, time.perf_counter() - start, cpu, peak))
        return result

    measured("(start)", lambda: None)
    if name == "write":
        sync = os.fsync
        os.fsync = lambda fd: None
        measured("rows, without syncing", lambda: write(folder, clips, conditions))
        os.fsync = sync
        lines = [Row(key=f"{index:024}", kind="x" * 180) for index in range(_ROWS_AT_ONCE)]
        with RunStore(folder.parent / "synced") as store:
            start, cpu = time.perf_counter(), time.process_time()
            for _ in range(_SYNCS):
                store.append(lines)
            times = (time.perf_counter() - start, time.process_time() - cpu)
        seconds, cpu = (taken / (8 * _SYNCS) * count * num_conditions for taken in times)
        steps.append(("syncing a batch of 8 at a time", seconds, cpu, steps[-1][3]))
    elif name == "files":
        for kind, most in (("files", count), ("tar files", 0)):
            encoded_clips.MOST_FILES = most
            with RunStore(folder.parent / kind) as store:
                store.write_clips(clips)
                rows = measured(f"{kind}, written", partial(keep_encoded, store, clips, conditions))
                measured(f"{kind}, read", partial(read_encoded, store, rows))
    elif name == "resume":
        request = ParsedRequest(Request(workers=1), [], [], [], [], [])
        prepared = [PreparedCondition(condition) for condition in conditions]
        run = PreparedRun(request, Dataset("big", clips), prepared, metrics_of(), [])
        measured("data set hashed", lambda: Dataset("big", clips).hash)
        with measured("run folder opened", lambda: RunStore(folder)) as store:
            runner = measured("batches", lambda: Runner(store, run))
            measured("resumed, nothing to do", runner.run)
    elif name == "report":
        with measured("run folder opened", lambda: RunStore(folder, write=False)) as store:
            results = measured("results loaded", lambda: load_results(store))
        measured("summary and its intervals", lambda: results.summary)
        measured("all tables and plots", lambda: evaluation.report.write_all(results, folder))
    elif name == "merge":
        measured("merged", lambda: merge_runs(folder.parent / "merged", [folder]))
    print(json.dumps(steps))


PHASES = ("write", "files", "resume", "report", "merge")


def measure(
    count: int, num_conditions: int, per_recording: int, keep: Path | None
) -> dict[tuple[str, str], tuple[float, float, float]]:
    """(phase, step) -> seconds, CPU seconds and peak memory in MiB above that of the imports."""
    found = {}
    with tempfile.TemporaryDirectory(prefix="big-run-", dir=keep) as temporary:
        folder = Path(temporary) / "run"
        for phase in PHASES:
            sizes = [str(count), str(num_conditions), str(per_recording)]
            command = [sys.executable, __file__, "--phase", phase, str(folder), *sizes]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"phase '{phase}' at {count} clips failed:\n{done.stderr[-2000:]}")
            steps = json.loads(done.stdout.splitlines()[-1])
            for what, seconds, cpu, peak in steps[1:]:
                found[phase, what] = seconds, cpu, peak - steps[0][3]
        rows = sum(path.stat().st_size for path in (folder / "rows").iterdir())
        found["disk", "rows"] = (rows / 2**20, 0.0, 0.0)
        found["disk", "list of clips"] = ((folder / "clips.jsonl").stat().st_size / 2**20, 0.0, 0.0)
        for kind in ("files", "tar files"):
            files = [path for path in (folder.parent / kind / "encoded").rglob("*") if path.is_file()]
            blocks = sum(path.stat().st_blocks * 512 for path in files)
            found["disk", f"encoded clips in {kind}"] = (blocks / 2**20, 0.0, 0.0)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=4000)
    parser.add_argument("--conditions", type=int, default=2)
    parser.add_argument("--per-recording", type=int, default=1, help="clips of a recording")
    parser.add_argument("--target", type=int, default=1_000_000, help="clips to extrapolate to")
    parser.add_argument("--in", dest="keep", type=Path, default=None, help="write below this folder")
    parser.add_argument("--phase", nargs=5, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.phase is not None:
        name, folder, *sizes = options.phase
        run_phase(name, Path(folder), *map(int, sizes))
        return
    if options.clips < 40 or options.conditions < 1 or options.per_recording < 1:
        raise SystemExit("give 40 clips or more, one condition or more and one clip per recording or more")
    sizes = [options.clips // 4, options.clips // 2, options.clips]
    found = [measure(n, options.conditions, options.per_recording, options.keep) for n in sizes]
    # From the slope between the sizes: what every run takes, however small, is not multiplied.
    pairs, more = options.clips * options.conditions, options.clips - sizes[0]
    factor = options.target / more
    print(f"{options.clips} clips x {options.conditions} conditions; {options.target} clips extrapolated")
    heads = f"{'CPU us/pair':>12} {'grows':>7} {'peak B/pair':>12} {'CPU':>10} {'clock':>10} {'peak':>10}"
    print(f"{'':42} {heads}")
    for key, (seconds, cpu, peak) in found[-1].items():
        first = found[0][key]
        slope, cpu_slope, peak_slope = seconds - first[0], cpu - first[1], peak - first[2]
        if key[0] == "disk":
            size, whole = seconds * 2**20 / pairs, slope * factor / 1024
            print(f"{'disk: ' + key[1]:42} {size:25.0f} B/pair {whole:27.1f} GiB")
            continue
        # A step that does not grow visibly is lost in what else the machine does.
        shown = [
            f"{'-':>12} {'-':>7}",
            f"{'-':>10}",
            f"{slope * factor / 60:6.1f} min" if slope > 0 else f"{'-':>10}",
        ]
        if cpu > 0.1 and cpu_slope > 0:
            grows = math.log(cpu / first[1], options.clips / sizes[0])
            shown[0] = f"{1e6 * cpu_slope / more / options.conditions:12.1f} {f'x^{grows:.2f}':>7}"
            shown[1] = f"{cpu_slope * factor / 60:6.1f} min"
        memory = f"{peak_slope * 2**20 / more / options.conditions:12.0f}"
        whole = peak_slope * factor / 1024
        print(f"{': '.join(key):42} {shown[0]} {memory} {shown[1]} {shown[2]} {whole:6.1f} GiB")


if __name__ == "__main__":
    main()
