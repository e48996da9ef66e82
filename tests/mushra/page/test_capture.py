"""What the page really plays, recorded behind its output while a listener works, against the files."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from browser_audio import ENCODE, samples
from listener import listen, shown
from listening_material import FILE_RATE, VOLUME, mushra
from listening_site import Site

pytestmark = pytest.mark.slow

#: Forces the rate of the sound device, and connects a recorder beside whatever is connected to the output.
#: The page itself knows nothing of it.
TAP = """
(() => {
  const Original = window.AudioContext;
  window.AudioContext = class extends Original {
    constructor(options) {
      super({ ...options, sampleRate: RATE });
      window.tapped = [];
      const module = URL.createObjectURL(new Blob([WORKLET], { type: "text/javascript" }));
      window.tapReady = this.audioWorklet.addModule(module).then(() => {
        const mono = { channelCount: 1, channelCountMode: "explicit" };
        this.tap = new AudioWorkletNode(this, "tap", { numberOfOutputs: 0, ...mono });
        this.tap.port.onmessage = (event) => window.tapped.push(event.data);
        for (const node of this.waiting ?? []) connect.call(node, this.tap);
      }).catch((error) => {
        if (this.state !== "closed") throw error; // one that only asked for the device's rate
      });
    }
  };
  const connect = AudioNode.prototype.connect;
  AudioNode.prototype.connect = function (target, ...rest) {
    if (target instanceof AudioDestinationNode && this.context instanceof Original) {
      if (this.context.tap) connect.call(this, this.context.tap);
      else (this.context.waiting ??= []).push(this);
    }
    return connect.call(this, target, ...rest);
  };
})();
"""
TAP_WORKLET = """
registerProcessor("tap", class extends AudioWorkletProcessor {
  process([input]) {
    const samples = input[0] ? input[0].slice() : new Float32Array(128);
    this.port.postMessage({ frame: currentFrame, samples });
    return true;
  }
});
"""
READ = """
() => {
  const blocks = window.tapped.slice().sort((a, b) => a.frame - b.frame);
  const first = blocks[0].frame;
  const whole = new Float32Array(blocks.at(-1).frame - first + 128);
  for (const { frame, samples } of blocks) whole.set(samples, frame - first);
  return ENCODE(whole);
}
""".replace("ENCODE", ENCODE)
#: Nothing has sounded for the last 50 blocks, some 140 ms.
SILENT = "window.tapped.length > 50 && !window.tapped.slice(-50).some(({ samples }) => samples.some(Boolean))"
#: Frames that the browser makes of an excerpt.
DECODED_LENGTH = """
async (rate) => {
  const loaded = performance.getEntriesByType("resource");
  const url = loaded.find((entry) => entry.name.includes("/stimuli/")).name;
  const data = await (await fetch(url)).arrayBuffer();
  return (await new OfflineAudioContext(1, 1, rate).decodeAudioData(data)).length;
}
"""


def noise(seed: int) -> np.ndarray:
    """Two seconds that are like no others: band-limited, so that resampling changes them little."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft(rng.standard_normal(2 * FILE_RATE))
    spectrum[np.fft.rfftfreq(2 * FILE_RATE, 1 / FILE_RATE) > 8000] = 0
    signal = np.fft.irfft(spectrum)
    return 0.9 * signal / np.abs(signal).max()


@pytest.mark.parametrize("rate", [44100, 48000])
def test_what_is_heard_is_what_was_asked_for(
    site: Callable[..., Site], open_page: Callable[..., Any], rate: int
) -> None:
    served = site([VOLUME, mushra()])
    files = {"reference": noise(0), "A": noise(1), "B": noise(2), "C": noise(3)}
    for name, file in zip(files, ("reference", "one", "two", "three"), strict=True):
        sf.write(served.folder / f"{file}.wav", files[name], FILE_RATE, subtype="FLOAT")
    served.stop()
    served.start()  # it has hashed the files anew
    tap = TAP.replace("RATE", str(rate)).replace("WORKLET", json.dumps(TAP_WORKLET))
    page = open_page(init=tap, bypass_csp=True)  # the recorder's script is no file of the server
    page.goto(served.url)
    page.get_by_role("button", name="Start", exact=True).click()
    page.evaluate("window.tapReady")
    page.get_by_role("button", name="Play").click()
    page.wait_for_function("window.tapped.some(({ samples }) => samples.some(Boolean))")
    page.get_by_role("button", name="Next").click()
    shown(page, "mushra")
    page.wait_for_function(SILENT)
    page.evaluate("window.tapped.length = 0")
    pressed = ["0", "1", "3", "2", "4", "1", "0"]
    for key in pressed:
        page.keyboard.press(key)
        listen(page, 0.38)
    page.keyboard.press("Space")
    page.wait_for_function(SILENT)
    recorded = samples(page.evaluate(READ))

    conditions = served.conditions()["p2"]
    names = ["reference" if key == "0" else conditions[f"s{key}"] for key in pressed]
    signals = {name: resampled(signal, rate) for name, signal in files.items()}
    # A file at the context's rate comes through bit for bit; another one through the browser's resampler.
    worst = 1e-6 if rate == FILE_RATE else 2e-3
    # Between the samples of a file a peak can be higher than they are.
    peak = 0.5 * 0.9 * (1 if rate == FILE_RATE else 1.02) + worst
    assert np.abs(recorded).max() <= peak, "nothing is louder than the file at the volume that was set"

    length = page.evaluate(DECODED_LENGTH, rate)
    assert abs(length - 2 * rate) <= 1
    first = int(np.flatnonzero(recorded)[0])
    # The first frames of the first fade are too soft to be told from nothing.
    begin = min(
        range(first - 3, first + 1), key=lambda at: mismatch(recorded, signals[names[0]], at, length, rate)
    )
    frames = np.arange(begin, recorded.size)
    fade = int(0.005 * rate + 0.5)
    stretches: list[tuple[int, int, str]] = []
    for name in dict.fromkeys(names):
        heard = 0.5 * signals[name][np.minimum((frames - begin) % length, signals[name].size - 1)]
        same = (np.abs(recorded[begin:] - heard) < worst).astype(int)
        turns = np.flatnonzero(np.diff(np.concatenate([[0], same, [0]])))
        stretches += [(a, b, name) for a, b in zip(turns[0::2], turns[1::2], strict=True) if b - a > 2 * fade]
    stretches.sort()

    # The right signals in the right order, each where the common time has it, to the frame.
    assert collapsed([name for _, _, name in stretches]) == collapsed(names)
    for (_, end, before), (start, _, after) in pairwise(stretches):
        gap = (start - end) / rate
        assert gap > 0, "two signals at once"
        # A switch soon after the loop's edge: what sounds between the two gaps is too short to be a stretch.
        two = before != after and start // length > end // length
        assert gap <= (2 * 0.012 + 2 * fade / rate if two else 0.012), (
            "a gap at a switch or at the loop's edge"
        )
    assert np.abs(recorded[begin + stretches[-1][1] + fade + 1 :]).max() == 0, "silence after the pause"


def collapsed(names: list[str]) -> list[str]:
    """Without repetitions: the hidden reference sounds as the reference."""
    return [name for n, name in enumerate(names) if n == 0 or names[n - 1] != name]


def mismatch(recorded: np.ndarray, signal: np.ndarray, begin: int, length: int, rate: int) -> float:
    """How far the recording is from a signal begun there, from 20 to 120 ms after."""
    window = np.arange(round(0.02 * rate), round(0.12 * rate))
    return float(np.abs(recorded[begin + window] - 0.5 * signal[window % length]).max())


def resampled(signal: np.ndarray, rate: int) -> np.ndarray:
    """An ideal band-limited version at another rate, by Fourier (the excerpt taken as one period)."""
    if rate == FILE_RATE:
        return signal
    spectrum = np.fft.rfft(signal)
    n = round(signal.size * rate / FILE_RATE)
    return np.fft.irfft(spectrum[: n // 2 + 1], n) * n / signal.size
