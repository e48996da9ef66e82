"""A small listening test with every type of page, and signals that can be told apart in a recording."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile as sf
import yaml

#: Seconds of every excerpt, and the rate of the files.
DURATION_S = 2.0
FILE_RATE = 48000

#: Frequency in Hz of each signal of a trial: the hidden reference sounds as the reference.
TONES = {"reference": 500.0, "one": 900.0, "two": 1400.0, "three": 2100.0}


def tone(frequency: float, duration_s: float = DURATION_S, rate: int = FILE_RATE) -> np.ndarray:
    """A sine of peak 0.5 whose phase tells where in the excerpt we are."""
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(round(duration_s * rate)) / rate)


def write_test(folder: Path, pages: list, **general: object) -> Path:
    """A test folder with the excerpts and a configuration of those pages; path of its YAML."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, frequency in TONES.items():
        sf.write(folder / f"{name}.wav", tone(frequency), FILE_RATE, subtype="FLOAT")
    (folder / "broken.wav").write_bytes(b"RIFF no sound at all")
    sf.write(folder / "longer.wav", tone(700.0, DURATION_S + 0.5), FILE_RATE, subtype="FLOAT")
    sf.write(folder / "excerpt.wav", speech_like(), FILE_RATE, subtype="FLOAT")
    config = {"testname": "Codecs at 16 kbit/s", "testId": "page", **general, "pages": pages}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path


def speech_like() -> np.ndarray:
    """Bursts of noise and tones: something to look at in a waveform."""
    rng = np.random.default_rng(7)
    t = np.arange(round(6.0 * FILE_RATE)) / FILE_RATE
    envelope = np.abs(np.sin(2 * np.pi * 0.9 * t) * np.sin(2 * np.pi * 0.23 * t + 0.4)) ** 1.5
    return 0.4 * envelope * (0.7 * np.sin(2 * np.pi * 180 * t) + 0.15 * rng.standard_normal(t.size))


def mushra(page: str = "trial1", **keys: object) -> dict:
    stimuli = {"A": "one.wav", "B": "two.wav", "C": "three.wav"}
    return {
        "type": "mushra",
        "id": page,
        "name": "How close is it to the reference?",
        "content": "Rate the <b>overall quality</b> of each item.",
        "showWaveform": True,
        "enableLooping": True,
        "reference": "reference.wav",
        "stimuli": stimuli,
        **keys,
    }


GENERIC = {
    "type": "generic",
    "id": "welcome",
    "name": "Welcome",
    "content": "<p>Thank you for listening.</p>",
}
VOLUME = {
    "type": "volume",
    "id": "level",
    "name": "Volume",
    "stimulus": "reference.wav",
    "defaultVolume": 0.5,
}
CONSENT = {
    "type": "consent",
    "id": "consent",
    "name": "Consent",
    "content": "<p>Your ratings are stored without your name.</p>",
    "mustConsent": True,
}
BS1116 = {
    "type": "bs1116",
    "id": "small",
    "name": "Small impairments",
    "showWaveform": True,
    "enableLooping": True,
    "reference": "reference.wav",
    "stimuli": {"A": "one.wav"},
}
PAIRED = {
    "type": "paired_comparison",
    "id": "pair",
    "name": "A or B?",
    "showWaveform": True,
    "enableLooping": True,
    "unforced": "I cannot tell",
    "reference": "reference.wav",
    "stimuli": {"A": "one.wav"},
}
LIKERT_MULTI = {
    "type": "likert_multi_stimulus",
    "id": "multi",
    "name": "How natural is it?",
    "mustRate": True,
    "mustPlayback": "processUpdate",
    "stimuli": {"A": "one.wav", "B": "two.wav"},
    "response": [
        {"value": str(n), "label": text} for n, text in enumerate(("not", "a little", "very"), start=1)
    ],
}
SPATIAL = {
    "type": "spatial",
    "id": "where",
    "name": "Where is it?",
    "stimuli": {"A": "one.wav", "B": "two.wav"},
}
FINISH = {
    "type": "finish",
    "id": "end",
    "name": "Some questions",
    "content": "<p>Almost done.</p>",
    "showResults": True,
    "popupContent": "Good-bye and <b>thanks</b>!",
    "questionnaire": [
        {"type": "text", "name": "initials", "label": "Your <em>initials</em>"},
        {"type": "number", "name": "age", "label": "Age", "min": 18, "max": 99, "optional": True},
        {
            "type": "likert",
            "name": "expert",
            "label": "Have you done listening tests before?",
            "response": [{"value": "no", "label": "No"}, {"value": "yes", "label": "Yes"}],
        },
        {"type": "long_text", "name": "remarks", "label": "Remarks", "optional": True},
    ],
}
