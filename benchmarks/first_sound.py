"""Seconds from Start to the first sound on a slow line, in Chromium.

    python benchmarks/first_sound.py

A page of eight 10 s signals and their reference at 44.1 kHz in FLAC, mono and stereo: noise with the
spectrum and the swells of music, which FLAC packs as badly as music. Chromium throttles the line to 2
Mbit/s with 40 ms (`Network.emulateNetworkConditions`); server and browser share the machine. The page is
the first of the test, so nothing is loaded before Start. A click plays the reference as soon as the page
offers it.

Reported: when the first sample is scheduled, how many bytes a file has and how long one takes on this line,
when the page with all signals is shown, and the least that this takes.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
from playwright.sync_api import sync_playwright
from werkzeug.serving import make_server

from mushra.config.load import load_config
from mushra.server import create_app
from qincodec import audio

RATE, SECONDS, SIGNALS = 44100, 10, 8
LIMIT_S = 3.0
#: Notes when the first source is to sound, in milliseconds of the page's clock.
NOTE = """
(() => {
  const start = AudioBufferSourceNode.prototype.start;
  AudioBufferSourceNode.prototype.start = function (when, ...rest) {
    window.firstSound ??= performance.now() + 1000 * Math.max(0, when - this.context.currentTime);
    window.firstLength ??= this.buffer.duration;
    return start.call(this, when, ...rest);
  };
  document.addEventListener("click", () => { window.pressed ??= performance.now(); }, true);
})();
"""
#: Seconds from Start to the first sound, and how much of it there was.
WHEN_HEARD = """
async () => {
  while (!window.firstSound) await new Promise((resolve) => setTimeout(resolve, 20));
  return [(window.firstSound - window.pressed) / 1000, window.firstLength];
}
"""


def music_like(rng: np.random.Generator, channels: int) -> np.ndarray:
    """(channels, samples): 1/f noise below 16 kHz that swells; half of it common to the channels."""
    size = RATE * SECONDS
    frequencies = np.fft.rfftfreq(size, 1 / RATE)
    shape = np.where(frequencies < 16000, 1 / np.maximum(frequencies, 50), 0)
    noise = np.fft.irfft(np.fft.rfft(rng.standard_normal((channels + 1, size))) * shape, size)
    noise = 0.7 * noise[:1] + 0.7 * noise[1:]
    swell = 0.6 + 0.4 * np.sin(2 * np.pi * 1.5 * np.arange(size) / RATE)
    return 0.5 * swell * noise / np.abs(noise).max()


def make_test(folder: Path, channels: int) -> int:
    """A test of one page; the size of its largest file in bytes."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    reference = music_like(rng, channels)
    for n in range(SIGNALS):
        samples = reference if n == 0 else 0.9 * reference + 0.02 * rng.standard_normal(reference.shape)
        audio.write(folder / f"{n}.flac", samples, RATE, "pcm16")
    stimuli = ", ".join(f"c{n}: {n}.flac" for n in range(1, SIGNALS))
    (folder / "config.yaml").write_text(
        "testname: Slow line\ntestId: slow\npages:\n"
        f"  - {{type: mushra, id: t, reference: 0.flac, stimuli: {{{stimuli}}}}}\n",
        encoding="utf-8",
    )
    return max(path.stat().st_size for path in folder.glob("*.flac"))


def measure(chromium: Any, url: str, mbit: float) -> dict[str, float]:
    browser = chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"])
    page = browser.new_page()
    page.set_default_timeout(300_000)
    page.add_init_script(NOTE)
    line = page.context.new_cdp_session(page)
    page.goto(url)
    page.wait_for_selector("button.big")
    line.send("Network.enable")
    rate = mbit * 1e6 / 8
    line.send(
        "Network.emulateNetworkConditions",
        {"offline": False, "latency": 40, "downloadThroughput": rate, "uploadThroughput": rate},
    )
    page.locator("button.big").click()
    page.get_by_role("button", name="Play the reference").first.click()
    first = page.evaluate(WHEN_HEARD)
    page.wait_for_selector("[data-type=mushra] .next:enabled")
    shown = page.evaluate("(performance.now() - window.pressed) / 1000")
    browser.close()
    return {"first": first[0], "length": first[1], "shown": shown}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mbit", type=float, default=2.0, help="speed of the line in Mbit/s")
    options = parser.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        for channels in (1, 2):
            folder = Path(name) / str(channels)
            size = make_test(folder, channels)
            app = create_app(load_config(folder), folder / "results.sqlite")
            server = make_server("127.0.0.1", 0, app, threaded=True)
            Thread(target=server.serve_forever, daemon=True).start()
            found = measure(playwright.chromium, f"http://127.0.0.1:{server.server_port}/", options.mbit)
            server.shutdown()
            app.extensions["mushra"].store.close()
            one = 8 * size / options.mbit / 1e6
            print(
                f"{'mono' if channels == 1 else 'stereo'}: first sound after {found['first']:.1f} s (limit"
                f" {LIMIT_S:g}: {'met' if found['first'] < LIMIT_S else 'NOT met'}), the first"
                f" {found['length']:.1f} s of the reference; a file has {size / 1e6:.2f} MB, {one:.1f} s on"
                f" this line; the page after {found['shown']:.1f} s, {SIGNALS + 1} files take"
                f" {(SIGNALS + 1) * one:.1f} s"
            )


if __name__ == "__main__":
    main()
