"""Music that nobody has rights in: pieces drawn from a seed, played by General MIDI instruments.

A piece has a key, a tempo, chords that repeat and one to five parts (bass, chords, arpeggio, melody, drums).
The pieces that are held out play instruments that no other piece plays, since a part of what a sound font
brings is in every piece that plays the same instrument.
"""

from __future__ import annotations

import random
import struct
import subprocess
from pathlib import Path

import numpy as np
import soundfile as sf

TICKS = 480
_SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 3, 5, 7, 9, 10), (0, 2, 4, 6, 7, 9, 11))
#: General MIDI's "ethnic" family is heard only in pieces that are held out; sound effects never.
HELD_OUT_PROGRAMS = tuple(range(104, 112))
_PROGRAMS = tuple(range(104)) + tuple(range(112, 120))
_DRUM_CHANNEL = 9
_ROLES = ("melody", "chords", "bass", "arpeggio", "melody")


def programs(number: int, held_out: bool) -> list[int]:
    """The five instruments of piece ``number``, in turn from a shuffled list: all of them are heard."""
    known = list(HELD_OUT_PROGRAMS if held_out else _PROGRAMS)
    random.Random(0).shuffle(known)
    return [known[(5 * number + part) % len(known)] for part in range(5)]


def midi(number: int, seconds: float, held_out: bool) -> bytes:
    """A standard MIDI file (format 0) of piece ``number``."""
    rng = random.Random(f"piece {number} {held_out}")
    tempo, key, scale = rng.uniform(55, 165), rng.randrange(12), rng.choice(_SCALES)
    chords = [rng.randrange(7) for _ in range(rng.choice((4, 4, 8)))]
    bars = max(1, round(seconds * tempo / 240))
    parts = rng.randint(1, 5)
    events: list[tuple[int, bytes]] = [(0, b"\xff\x51\x03" + round(60e6 / tempo).to_bytes(3, "big"))]

    def pitch(degree: int, octave: int) -> int:
        return max(0, min(127, 12 * (octave + degree // 7) + key + scale[degree % 7]))

    def note(channel: int, at: float, beats: float, pitch: int, loud: int) -> None:
        start = max(0, round(TICKS * at) + rng.randint(-8, 8))
        velocity = max(1, min(127, loud + rng.randint(-18, 18)))
        events.append((start, bytes((0x90 | channel, pitch, velocity))))
        events.append(
            (start + max(20, round(TICKS * beats * rng.uniform(0.6, 1.0))), bytes((0x80 | channel, pitch, 0)))
        )

    for channel, program in enumerate(programs(number, held_out)[:parts]):
        role, loud, octave = _ROLES[channel], rng.randint(50, 105), rng.randint(4, 6)
        events.append((0, bytes((0xC0 | channel, program))))
        events.append((0, bytes((0xB0 | channel, 10, rng.randint(16, 111)))))
        degree = rng.randrange(7)
        for bar in range(bars):
            root, at = chords[bar % len(chords)], 4 * bar
            if role == "chords":
                for third in (0, 2, 4):
                    note(channel, at, 4, pitch(root + third, octave), loud - 10)
            elif role == "bass":
                for beat in range(0, 4, rng.choice((1, 2))):
                    note(channel, at + beat, 1, pitch(root + rng.choice((0, 0, 4)), 3), loud)
            elif role == "arpeggio":
                for step in range(8):
                    note(channel, at + step / 2, 0.5, pitch(root + (0, 2, 4, 7)[step % 4], octave), loud - 8)
            else:
                passed = 0.0
                while passed < 4:
                    beats = rng.choice((0.25, 0.5, 0.5, 1.0, 1.0, 2.0))
                    degree = max(-5, min(12, degree + rng.choice((-2, -1, -1, 1, 1, 2))))
                    if rng.random() < 0.85:
                        note(channel, at + passed, beats, pitch(degree, octave), loud)
                    passed += beats
    if not held_out and rng.random() < 0.4:
        events.append((0, bytes((0xC0 | _DRUM_CHANNEL, rng.choice((0, 8, 16, 24, 32, 40))))))
        for eighth in range(8 * bars):
            hits = (
                [42 if rng.random() < 0.8 else 46]
                + ([36] if eighth % 4 == 0 else [])
                + ([38] if eighth % 8 == 4 else [])
            )
            hits += [rng.choice((41, 45, 49, 51, 54, 56, 60, 64, 70))] if rng.random() < 0.15 else []
            for hit in hits:
                note(_DRUM_CHANNEL, eighth / 2, 0.25, hit, 80)
    events.sort(key=lambda event: (event[0], event[1][0] & 0xF0 == 0x90))
    track, before = b"", 0
    for tick, message in events:
        track += _length(tick - before) + message
        before = tick
    track += _length(TICKS) + b"\xff\x2f\x00"
    return b"MThd" + struct.pack(">IHHH", 6, 0, 1, TICKS) + b"MTrk" + struct.pack(">I", len(track)) + track


def _length(value: int) -> bytes:
    """MIDI's number of variable length."""
    out = bytes((value & 0x7F,))
    while value := value >> 7:
        out = bytes((0x80 | value & 0x7F,)) + out
    return out


def render(score: bytes, font: Path, out: Path, rate: int, channels: int, peak: float) -> None:
    """``out`` (FLAC) of a MIDI file played by ``font`` with FluidSynth, at a peak of ``peak``."""
    notes, wave = out.with_suffix(".mid"), out.with_suffix(".wav")
    notes.write_bytes(score)
    command = [
        "fluidsynth",
        "-n",
        "-i",
        "-q",
        "-g",
        "0.4",
        "-r",
        str(rate),
        "-O",
        "float",
        "-F",
        str(wave),
        str(font),
    ]
    try:
        subprocess.run([*command, str(notes)], check=True, stdout=subprocess.DEVNULL)
        audio, _ = sf.read(wave, dtype="float32", always_2d=True)
        audio = audio if channels == 2 else audio.mean(axis=1, keepdims=True)
        sf.write(out, audio * (peak / max(float(np.abs(audio).max()), 1e-9)), rate, subtype="PCM_16")
    finally:
        notes.unlink()
        wave.unlink(missing_ok=True)
