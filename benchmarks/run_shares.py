"""What of a run without neural codecs its parts take, as shares of the processor time.

    python benchmarks/run_shares.py DATA [--limit 40] [--codecs opus,mp3] [--kbps 16,32]

One worker in this process. One clip is evaluated before, so that what is imported and built once does not
count. Prints the share of each part, as the time of its thread, and of all the rest.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evaluation import evaluate
from evaluation.embeddings.logmel import LogMel
from evaluation.engine.alignment import Aligner
from evaluation.engine.coding import Coder
from evaluation.metrics.ms_mel import MsMel
from evaluation.metrics.si_sdr import SiSdr

#: Name of a part -> the methods that it is.
PARTS: dict[str, list[tuple[type, str]]] = {
    "coding and resampling": [(Coder, "code"), (Coder, "decode")],
    "reading": [(Coder, "reference")],
    "delay": [(Aligner, "__init__"), (Aligner, "estimate")],
    "SI-SDR": [(SiSdr, "prepare"), (SiSdr, "score")],
    "MS-Mel": [(MsMel, "prepare"), (MsMel, "score")],
    "logmel": [(LogMel, "embed")],
}


def measured(taken: dict[str, float], part: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(*args: Any, **keywords: Any) -> Any:
        start = time.thread_time()
        try:
            return method(*args, **keywords)
        finally:
            taken[part] += time.thread_time() - start

    return wrapped


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--limit", type=int, default=40, help="number of clips")
    parser.add_argument("--codecs", default="opus,mp3")
    parser.add_argument("--kbps", default="16,32")
    options = parser.parse_args()

    def run(limit: int, folder: Path) -> int:
        results = evaluate(
            options.data,
            options.codecs,
            options.kbps,
            out=folder,
            metrics="si_sdr,ms_mel,logmel",
            match="nominal",
            limit=limit,
            workers=1,
        )
        return len(results.clips)

    with tempfile.TemporaryDirectory() as folder:
        run(1, Path(folder) / "first")
        taken: dict[str, float] = defaultdict(float)
        for part, methods in PARTS.items():
            for kind, name in methods:
                setattr(kind, name, measured(taken, part, getattr(kind, name)))
        start, start_cpu = time.perf_counter(), time.process_time()
        rows = run(options.limit, Path(folder) / "run")
        wall_s, cpu_s = time.perf_counter() - start, time.process_time() - start_cpu
    print(f"{rows} rows, {cpu_s:.1f} s of processor time, {wall_s:.1f} s")
    taken["the rest"] = cpu_s - sum(taken.values())
    for part, seconds in sorted(taken.items(), key=lambda item: -item[1]):
        print(f"{part:22} {100 * seconds / cpu_s:5.1f} %  {1000 * seconds / rows:7.2f} ms a row")


if __name__ == "__main__":
    main()
