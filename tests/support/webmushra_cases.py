"""Small tests as webMUSHRA runs them, each of a kind that a strict reader of YAML refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

PLAIN_COLON = """\
testname: Colons
testId: colons
pages:
  - type: generic
    id: w
    name: Welcome
    content: Please note: wear headphones.
  - type: mushra
    id: t1
    name: Item 1: guitar
    reference: ref.wav
    stimuli:
      a: a.wav
      b: b.wav
  - type: finish
    name: Bye
"""

VALUES = """\
testname: Values
testId: 2024_01
pages:
  - {type: mushra, id: 1_2, name: 1e3, enableLooping: yes,
    reference: ref.wav, stimuli: {a: a.wav, 010: b.wav}}
  - type: finish
    name: Bye
    questionnaire:
      - type: likert
        name: age
        label: Age
        response: [{value: 18_27, label: 18 to 27}, {value: 1:30}, {value: 0x10, label: hex}]
      - type: likert
        name: trained
        response:
          - {value: yes}
          - {value: no}
      - type: likert
        name: time
        response: [{value: 1:30, label: half past one}, {value: 1e3, label: exp}, {value: 010, label: oct}]
"""

SCALES = """\
testname: Multi
testId: multi
pages:
  - type: likert_single_stimulus
    id: l1
    name: two scales
    showWaveform: true
    mustRate: true
    stimuli: {a: a.wav, b: b.wav}
    response:
      - - {value: bad, label: Bad}
        - {value: good, label: Good}
      - - {value: dull, label: Dull}
        - {value: bright, label: Bright}
  - {type: finish, name: Bye}
"""

UNKNOWN = """\
testname: Unknown
testId: unknown
stopOnError: true
pages:
  - {type: mushra, id: t1, reference: ref.wav, stimuli: {a: a.wav}, mushraImg: x.png, swichBack: true}
  - type: likert_multi_stimulus
    id: t2
    stimuli: {a: a.wav}
    response: [{value: 1, image: x.png}]
  - {type: generic, id: same}
  - {type: generic, id: same}
  - {type: generic, id: t1}
  - {type: finish, name: Bye, name: again, popupcontent: thanks}
"""


def write_case(folder: Path, text: str) -> Path:
    """A folder with that test and its sounds; path of the YAML."""
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(3).normal(0, 0.05, 24000)
    for n, name in enumerate(("ref", "a", "b")):
        soundfile.write(folder / f"{name}.wav", noise * (1 - 0.2 * n), 24000)
    path = folder / "t.yaml"
    path.write_text(text, encoding="utf-8")
    return path
