"""The report of a study: five codecs at four rates on a hundred clips, with every metric that is here."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from chromium import chromium, watch
from known import register, register_codecs, tone_and_noise

from baselines.codec import ClipCodec, Codec, Encoded, Rate
from evaluation import evaluate
from evaluation.embeddings import EMBEDDINGS
from evaluation.metrics import METRICS
from evaluation.metrics.base import Metric, Score
from evaluation.report.html import write_html

pytestmark = pytest.mark.long

RATE, BITS, CLIPS, SECONDS = 8000, (1, 2, 3, 4), 100, 2.0
MOST_SECONDS, MOST_BYTES = 90, 80_000_000
#: Metrics of packages that take a second per clip or want speech: the report has them, with made-up values.
STAND_INS = ("visqol", "visqol_speech", "2f", "pesq", "stoi", "estoi")


class Companded(ClipCodec):
    """Samples of 8 kHz on a logarithmic scale, some bits each."""

    version, sample_rate, channels = "1", RATE, (1,)
    steepness = 255.0

    def rates(self, channels: int = 1) -> Sequence[Rate]:
        return [Rate(RATE * bits / 1000, {"bits": bits}) for bits in BITS]

    def encode_clip(self, audio: np.ndarray, rate: Rate) -> Encoded:
        bits = int(rate.settings["bits"])
        level = np.sign(audio) * np.log1p(self.steepness * np.abs(audio).clip(max=1))
        codes = np.floor((level / np.log1p(self.steepness) + 1) * 2 ** (bits - 1))
        codes = codes.clip(0, 2**bits - 1).astype(np.uint8)
        packed = np.packbits(np.unpackbits(codes.reshape(-1, 1), axis=1)[:, 8 - bits :])
        return Encoded(
            *(packed.tobytes(), RATE, *audio.shape),
            codes=codes.astype(np.int64),
            codebook_sizes=(2**bits,),
            side_info={"bits": bits},
        )

    def decode_clip(self, encoded: Encoded) -> np.ndarray:
        bits = encoded.side_info["bits"]
        packed = np.unpackbits(np.frombuffer(encoded.payload, np.uint8))[: bits * encoded.num_samples]
        codes = packed.reshape(-1, bits) @ (2 ** np.arange(bits - 1, -1, -1))
        level = ((codes + 0.5) / 2 ** (bits - 1) - 1) * np.log1p(self.steepness)
        return (np.sign(level) * np.expm1(np.abs(level)) / self.steepness).astype(np.float32)[None]


def codecs() -> list[type[Codec]]:
    steepness = (3, 15, 63, 255, 1023)
    return [type(f"Mu{mu}", (Companded,), {"name": f"mu{mu}", "steepness": float(mu)}) for mu in steepness]


def stand_in(name: str) -> type[Metric]:
    """A quick stand-in under the metric's name: the mean distance of samples."""

    def score(self: Metric, reference: Any, decoded: Any, sample_rate: int) -> list[Score]:
        return [Score(value) for value in -(reference - decoded).abs().mean((1, 2))]

    real = METRICS.load(name)
    names = ("name", "label", "unit", "higher_is_better", "definition")
    said = {attribute: getattr(real, attribute) for attribute in names}
    return type("StandIn", (Metric,), {**said, "version": "0", "score": score})


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    clips = tmp_path_factory.mktemp("clips")
    for seed in range(CLIPS):
        samples = tone_and_noise(seed % 20, SECONDS) * np.float32(0.2 + 0.008 * seed)
        soundfile.write(clips / f"clip{seed:03d}.wav", samples, 44100)
    run = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        own = codecs()
        register_codecs(patch, *own)
        for name in STAND_INS:
            register(patch, METRICS, name, stand_in(name))
        names = ",".join([*METRICS.names(), *EMBEDDINGS.names()])
        evaluate(clips, [codec() for codec in own], [8, 16, 24, 32], metrics=names, out=run)
        yield run


def test_a_report_of_a_study_is_quick_small_and_right(study: Path, tmp_path: Path) -> None:
    before, clock = time.process_time(), time.monotonic()
    written = write_html(study, tmp_path / "report", workers=2)
    seconds = time.process_time() - before
    print(f"{seconds:.1f} s of CPU time, {time.monotonic() - clock:.1f} s, {written.num_bytes / 1e6:.1f} MB")
    assert written.num_clips > 0 and written.num_bytes < MOST_BYTES
    assert seconds < MOST_SECONDS
    problems: list[str] = []
    with chromium() as start:
        for width, height in ((1440, 900), (390, 844)):
            page = start().new_context(viewport={"width": width, "height": height}).new_page()
            watch(page, problems)
            page.goto(written.page.as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") == width
            finding = page.locator(".finding").first.bounding_box()
            assert finding["y"] + finding["height"] < height  # on the first screen
            player = page.locator(".clip .play").first
            player.click()
            page.wait_for_function("[...document.querySelectorAll('audio')].some((a) => a.currentTime > 0.1)")
            box = player.bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= width
            page.context.close()
    assert problems == []
