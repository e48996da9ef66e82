"""Sound of more than two channels, through Chromium and a sound server: unmixed, or refused in words."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from firefox import Sound
from listener import shown, start
from listening_material import mushra
from listening_site import Site

CHANNELS, RATE = 6, 96000
#: As browsers and WAV files order 5.1.
MAP = "front-left,front-right,front-center,lfe,side-left,side-right"

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def device(tmp_path: Path, launch: Callable[..., Any]) -> Iterator[Callable[..., tuple[Any, Sound]]]:
    """Starts a sound server with a device of so many channels, and a page of a browser that plays there."""
    for program in ("pulseaudio", "pactl", "parec"):
        if shutil.which(program) is None:
            pytest.skip(f"CHANNELS NOT TESTED: needs {program} (apt-get install pulseaudio pulseaudio-utils)")
    running: list[Any] = []

    def start(channels: int, *settings: str) -> tuple[Any, Sound]:
        defaults = (f"default-sample-rate={RATE}", f"default-sample-channels={channels}")
        sound = Sound(tmp_path / "sound", *defaults)
        running.append(sound)
        sound.plug(f"rate={RATE}", f"channels={channels}", *settings)
        browser = launch(environment=sound.environment)
        running.append(browser)
        page = browser.new_page()
        page.set_default_timeout(120_000)
        return page, sound

    yield start
    for one in reversed(running):
        one.close()


@pytest.fixture
def served(site: Callable[..., Site], tmp_path: Path) -> tuple[Site, np.ndarray]:
    """A test with one trial of 5.1 at 96 kHz, and its reference: (samples, channels)."""
    noise = 0.1 * np.random.default_rng(5).standard_normal((4 * RATE, CHANNELS)).astype(np.float32)
    folder = tmp_path / "site0" / "test"
    folder.mkdir(parents=True)
    sf.write(folder / "surround.wav", noise, RATE, subtype="FLOAT")
    sf.write(folder / "softer.wav", 0.5 * noise, RATE, subtype="FLOAT")
    return site([mushra(reference="surround.wav", stimuli={"A": "softer.wav"})]), noise


def heard(pipe: Any, seconds: float) -> np.ndarray:
    """(samples, channels) of the first sound, silence before it left out."""
    block = np.zeros((0, CHANNELS), np.float32)
    while not block.any():
        block = np.frombuffer(pipe.read(4 * CHANNELS * RATE // 50), np.float32).reshape(-1, CHANNELS)
    rest = np.frombuffer(pipe.read(4 * CHANNELS * round(seconds * RATE)), np.float32)
    return np.concatenate([block, rest.reshape(-1, CHANNELS)])


def correlations(played: np.ndarray, recorded: np.ndarray) -> np.ndarray:
    """Of every channel of the file with every channel of a tenth of a second, at the lag of their first ones.

    Of that tenth of the recording that fits best: a busy machine leaves gaps.
    """
    length = RATE // 10
    size = len(played) + length
    spectrum = np.fft.rfft(played[:, 0], size)
    best = np.zeros((CHANNELS, CHANNELS))
    for first in range(0, len(recorded) - length, length):
        part = recorded[first : first + length]
        if part.std(axis=0).min() == 0:
            continue
        lags = np.fft.irfft(spectrum * np.fft.rfft(part[:, 0], size).conj(), size)
        lag = int(np.argmax(lags[: len(played) - length]))
        found = np.corrcoef(played[lag : lag + length].T, part.T)[:CHANNELS, CHANNELS:]
        if np.diag(found).min() > np.diag(best).min():
            best = found
    return best


def test_channel_k_is_heard_on_output_k(
    device: Callable[..., tuple[Any, Sound]], served: tuple[Site, np.ndarray]
) -> None:
    here, noise = served
    page, sound = device(CHANNELS, f"channel_map={MAP}")
    start(page, here.url)
    shown(page, "mushra")
    options = ("--format=float32le", f"--rate={RATE}", f"--channels={CHANNELS}", f"--channel-map={MAP}")
    with sound.recorder(*options) as pipe:
        page.locator(".reference").click()
        found = correlations(noise, heard(pipe, 1.0))
    assert np.diag(found).min() > 0.99, found.round(3)
    assert np.abs(found - np.diag(np.diag(found))).max() < 0.05, found.round(3)
    (row,) = here.rows("SELECT client FROM sessions")
    client = json.loads(row["client"])
    assert (client["sample_rate"], client["device_rate"]) == (RATE, RATE)
    assert (client["channels"], client["device_channels"]) == (CHANNELS, CHANNELS)


def test_a_stereo_device_is_refused_in_words(
    device: Callable[..., tuple[Any, Sound]], served: tuple[Site, np.ndarray]
) -> None:
    here, _ = served
    page, _ = device(2)
    start(page, here.url)
    said = page.locator(".message:has-text('Too few')").inner_text()
    assert "have 6 channels" in said
    assert "can play 2 on your sound device" in said
    assert here.rows("SELECT * FROM sessions") == [], "nobody has begun"
