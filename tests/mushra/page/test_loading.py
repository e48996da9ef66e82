"""On a slow line the reference is heard while the rest of the page is loading."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
from browser_audio import ENCODE, samples
from listener import shown
from listening_material import mushra
from listening_site import Site

RATE = 48000
#: Keeps what is started, from the sample on at which it begins.
STARTS = f"""
(() => {{
  window.started = [];
  const start = AudioBufferSourceNode.prototype.start;
  AudioBufferSourceNode.prototype.start = function (when, offset = 0, ...rest) {{
    const from = Math.round(offset * this.buffer.sampleRate);
    window.started.push([from, {ENCODE}(this.buffer.getChannelData(0).slice(from))]);
    return start.call(this, when, offset, ...rest);
  }};
}})();
"""
#: A function that waits for so many starts, and gives them.
WHEN_STARTED = """
async (count) => {
  while (window.started.length < count) await new Promise((resolve) => setTimeout(resolve, 20));
  return window.started;
}
"""


def test_the_reference_is_heard_from_its_beginning_while_the_rest_is_loading(
    site: Callable[..., Site], open_page: Callable[..., Any], tmp_path: Path
) -> None:
    folder = tmp_path / "site0" / "test"
    folder.mkdir(parents=True)
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, 3 * RATE)
    for n in range(2):
        sf.write(folder / f"{n}.flac", noise / (1 + n), RATE, subtype="PCM_16")
    served = site([mushra(reference="0.flac", stimuli={"A": "1.flac"})])
    page = open_page(init=STARTS)
    page.goto(served.url)
    page.wait_for_selector("button.big")
    line = page.context.new_cdp_session(page)
    line.send("Network.enable")
    rate = {"downloadThroughput": 100_000, "uploadThroughput": 100_000}  # 2.9 s for each of three files
    line.send("Network.emulateNetworkConditions", {"offline": False, "latency": 20, **rate})
    page.locator("button.big").click()
    page.get_by_role("button", name="Play the reference").click()
    page.evaluate(WHEN_STARTED, 1)
    assert page.locator(".item").count() == 0, "nothing is compared yet"
    started = page.evaluate(WHEN_STARTED, 2)
    line.send("Network.emulateNetworkConditions", {"offline": False, "latency": 0, **dict.fromkeys(rate, -1)})
    shown(page, "mushra")
    assert started[0][0] == 0
    known = 0
    for first, encoded in started:
        part = samples(encoded)
        assert first == known, "it goes on where it ended"
        known = first + part.size
        np.testing.assert_allclose(part, noise[first:known], atol=2**-15)
    assert samples(started[0][1]).size < noise.size, "it began before all of it was here"
