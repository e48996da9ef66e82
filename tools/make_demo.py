"""Makes the twelve clips of the embedded demo: ``python tools/make_demo.py OUT``.

Everything is the project's own: sentences spoken by espeak-ng, short pieces written below and played by
FluidSynth with the FluidR3 GM sound font, and ambiences synthesized with numpy. Needs the Debian packages
``espeak-ng``, ``fluidsynth`` and ``fluid-soundfont-gm``, and ``pyloudnorm``. Seeded: the same versions of
these programs make the same samples again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.signal import fftconvolve, sosfilt

from qincodec import audio
from qincodec.core.errors import UserError
from qincodec.core.files import file_sha256

SAMPLE_RATE = 44100
DURATION_S = 5.0
NUM_SAMPLES = int(DURATION_S * SAMPLE_RATE)
SOUND_FONT = Path("/usr/share/sounds/sf2/FluidR3_GM.sf2")
TARGET_LUFS = -18.0
CEILING = 10 ** (-1.5 / 20)
TICKS_PER_BEAT = 480
DRUM_CHANNEL = 9

#: (start in beats, length in beats, MIDI pitch, velocity)
Note = tuple[float, float, int, int]


@dataclass(frozen=True)
class Part:
    """One instrument of a piece: a General MIDI program (from 0) and its notes."""

    channel: int
    program: int
    notes: Sequence[Note]
    volume: int = 100
    pedal: Sequence[float] = ()  # beats at which the sustain pedal is lifted and pressed again


# --- instruments: a standard MIDI file, played by FluidSynth -------------------------------------------


def _variable_length(value: int) -> bytes:
    out = [value & 0x7F]
    while value := value >> 7:
        out.append(value & 0x7F | 0x80)
    return bytes(reversed(out))


def midi_file(parts: Sequence[Part], beats_per_minute: float) -> bytes:
    """A standard MIDI file, format 0, with all parts in its one track."""
    events: list[tuple[int, int, bytes]] = [
        (0, 0, b"\xff\x51\x03" + round(60e6 / beats_per_minute).to_bytes(3, "big"))
    ]
    for part in parts:
        control = bytes([0xB0 | part.channel])
        events.append((0, 1, bytes([0xC0 | part.channel, part.program])))
        events.append((0, 1, control + bytes([7, part.volume])))
        for beat in part.pedal:
            events.append((round(beat * TICKS_PER_BEAT), 2, control + bytes([64, 0])))
            events.append((round(beat * TICKS_PER_BEAT) + 20, 2, control + bytes([64, 127])))
        for start, length, pitch, velocity in part.notes:
            on, off = round(start * TICKS_PER_BEAT), round((start + length) * TICKS_PER_BEAT)
            events.append((on, 4, bytes([0x90 | part.channel, pitch, velocity])))
            # Note-offs sort before note-ons of the same tick, or a repeated note would be cut off.
            events.append((off, 3, bytes([0x80 | part.channel, pitch, 0])))
    events.sort()
    track, now = b"", 0
    for tick, _, message in events:
        track += _variable_length(tick - now) + message
        now = tick
    track += _variable_length(4 * TICKS_PER_BEAT) + b"\xff\x2f\x00"
    header = b"MThd" + struct.pack(">IHHH", 6, 0, 1, TICKS_PER_BEAT)
    return header + b"MTrk" + struct.pack(">I", len(track)) + track


def _call(command: Sequence[str | Path], stdin: str | None = None) -> None:
    done = subprocess.run([str(c) for c in command], input=stdin, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{command[0]} failed with code {done.returncode}: {done.stderr.strip()[-300:]}")


def play(parts: Sequence[Part], beats_per_minute: float, start_s: float = 0.0) -> np.ndarray:
    """The piece as (samples,) float32 at 44.1 kHz, from ``start_s`` on, at least 5 s long."""
    with tempfile.TemporaryDirectory() as folder:
        score, wav = Path(folder, "score.mid"), Path(folder, "score.wav")
        score.write_bytes(midi_file(parts, beats_per_minute))
        # A low gain: the float file would not clip, but FluidSynth's own mixer must not saturate either.
        options = f"-ni -q -g 0.3 -r {SAMPLE_RATE} -T wav -O float -F".split()
        _call(["fluidsynth", *options, wav, SOUND_FONT, score])
        samples, rate = audio.read(wav, start_s=start_s)
    assert rate == SAMPLE_RATE
    return audio.mix(samples, 1)[0]


def _grid(line: str, step: float, pitch: int, velocities: dict[str, int]) -> list[Note]:
    """Drum notes from a line of characters, one per ``step`` beats: ``"x..o"``; others are rests."""
    return [(i * step, step, pitch, velocities[c]) for i, c in enumerate(line) if c in velocities]


def _melody(text: str, velocity: int, start: float = 0.0) -> list[Note]:
    """Notes from ``"62:1 65:0.5 -:0.5"``: pitches joined by ``+`` or a rest ``-``, and beats."""
    notes, at = [], start
    for token in text.split():
        pitches, _, beats = token.partition(":")
        if pitches != "-":
            notes += [(at, float(beats) * 0.95, int(p), velocity) for p in pitches.split("+")]
        at += float(beats)
    return notes


def music_piano() -> np.ndarray:
    """Arpeggios in D minor under a melody in octaves."""
    chords = [(38, 45, 53, 57, 62, 57, 53, 45), (34, 41, 50, 53, 58, 53, 50, 41)]
    chords += [(31, 38, 46, 50, 55, 50, 46, 38), (33, 40, 49, 52, 57, 52, 49, 55)]
    left = [
        (bar * 2 + i / 4, 0.3, pitch, 54 + 8 * (i == 0) + (i * 5 + bar) % 7)
        for bar, chord in enumerate(chords)
        for i, pitch in enumerate(chord)
    ]
    right = _melody(
        "69+81:0.75 67+79:0.25 65+77:0.5 64:0.25 65:0.25 70+82:0.75 69:0.25 67:0.25 65:0.25 62+74:0.5 "
        "67+79:0.5 74:0.25 79:0.25 82+94:0.5 81:0.25 79:0.25 "
        "76+88:0.5 73:0.25 76:0.25 81:0.25 85:0.25 88+93:0.5",
        92,
    )
    return play([Part(0, 0, [*left, *right], pedal=(0, 2, 4, 6))], beats_per_minute=92)


def music_strings() -> np.ndarray:
    """A chorale in G with suspensions for string sections, and a run of the first violins."""
    violins = _melody(
        "74:1.5 79:0.5 78:1 76:0.5 78:0.5 79:0.25 81:0.25 83:0.25 84:0.25 86:1 88:0.5 86:0.5 83:2", 100
    )
    middle = _melody("67+71:2 69+72:1 67+72:0.5 69+72:0.5 67+71:1 66+69:1 67+71:1 67+74:1", 78)
    low = _melody("55:1 59:1 57:1 54:1 55:1 50:1 52:0.5 50:0.5 48:0.5 50:0.5", 84)
    bass = _melody("43:1 43:1 45:1 38:1 40:1 42:1 43:2", 88)
    pizzicato = _melody("-:4 79:0.25 83:0.25 86:0.25 91:0.25 88:0.25 86:0.25 83:0.25 79:0.25", 96)
    parts = [Part(0, 48, violins), Part(1, 48, middle, 86), Part(2, 42, low, 92), Part(3, 43, bass, 96)]
    return play([*parts, Part(4, 45, pizzicato, 90)], beats_per_minute=92, start_s=0.08)


def music_drums() -> np.ndarray:
    """A funk groove on a drum kit with ghost notes; two bars, the second ends in a fill."""
    loud = {"x": 112, "o": 88, ".": 44}
    lines = {
        36: "x..-..x--.x--x--" + "x--.--x---x-----",
        38: "----x--.-.--x--." + "----x--.----xx-o",
        42: "o.x.o.x.o.x.o.--" + "-.x.o.x.o.x.----",
        46: "--------------x-" + "----------------",
        49: "----------------" + "x---------------",
        48: "----------------" + "-----------oo---",
        45: "----------------" + "-------------x--",
        43: "----------------" + "--------------xx",
        39: "----------------" + "----o-------o---",
        54: "--o---o---o---o-" + "--o---o---o---o-",
    }
    notes = [note for pitch, line in lines.items() for note in _grid(line, 0.25, pitch, loud)]
    notes += [(8.0, 1.0, 57, 112), (8.0, 1.0, 36, 118)]
    dry = play([Part(DRUM_CHANNEL, 0, notes)], beats_per_minute=104)
    return np.tanh(1.5 * dry / np.max(np.abs(dry)))  # a compressed drum bus


def music_jazz() -> np.ndarray:
    """Swing trio: jazz guitar, walking bass, ride cymbal with brushes; ii-V-I in B flat."""
    swing = 2 / 3
    bass = _melody("36:1 39:1 43:1 40:1 41:1 45:1 48:1 47:1 46:1 50:1 53:1 41:1", 104)
    ride = [
        (beat + late, 0.5, 51, 98 - 22 * (late > 0))
        for beat in range(12)
        for late in (0.0, swing)[: 1 + beat % 2]
    ]
    hat = [(beat, 0.5, 44, 80) for beat in range(1, 12, 2)]
    snare = [(b + swing, 0.3, 38, 44 + 9 * (b % 3)) for b in (0, 2, 5, 7, 8, 10)]
    rim = [(3.0, 0.3, 37, 88), (7.0, 0.3, 37, 84), (11.0, 0.3, 37, 90)]
    comping = _melody("-:0.67 58+62+65:0.5 -:2.5 58+63+67:0.33 -:1.67 57+60+63:0.5 -:2.5 57+62+65:1", 82)
    solo = _melody(
        "75:0.67 74:0.33 72:0.67 70:0.33 67:0.67 72:0.33 70:1 69:0.67 72:0.33 75:0.67 78:0.33",
        108,
        start=0.67,
    )
    solo += _melody("77:0.67 75:0.33 74:0.67 70:0.33 74:1.5 72:0.5", 108, start=7.67)
    drums = Part(DRUM_CHANNEL, 40, [*ride, *hat, *snare, *rim], 104)
    parts = [Part(0, 26, solo, 112), Part(1, 0, comping, 78), Part(2, 32, bass, 112), drums]
    return play(parts, beats_per_minute=138)


def music_brass() -> np.ndarray:
    """A fanfare for trumpets, horns and trombones with timpani, snare rolls and cymbals."""
    trumpet = _melody(
        "70:0.33 70:0.33 70:0.34 77:1.5 75:0.25 74:0.25 72:0.5 82:1 77:0.5 79:0.33 79:0.33 79:0.34 82:2", 112
    )
    second = _melody(
        "65:0.33 65:0.33 65:0.34 74:1.5 72:0.25 70:0.25 69:0.5 74:1 74:0.5 75:0.33 75:0.33 75:0.34 77:2", 104
    )
    horns = _melody("58+62:1 65+70:1 65+70:1 63+69:0.5 62+65:1 65+70:0.5 63+67:1 65+70:2", 92)
    trombones = _melody("46:1 53+58:1 50+58:1 48+57:0.5 46+58:1 46+58:0.5 51+58:1 46+53:2", 104)
    timpani = _melody("34:1 -:0.5 41:0.25 41:0.25 34:1 -:0.5 41:0.5 34:0.5 34:0.5 39:0.5 41:0.5", 112)
    timpani += [(6 + i / 8, 0.12, 34, 74 + 3 * i) for i in range(14)]
    roll = [(i / 8, 0.1, 38, 74 + (i * 7) % 23) for i in (*range(8), *range(24, 48))]
    crash = [(1.0, 2.0, 57, 112), (6.0, 2.0, 57, 118)]
    parts = [
        Part(0, 56, trumpet, 100),
        Part(1, 56, second, 92),
        Part(2, 60, horns, 96),
        Part(3, 57, trombones),
    ]
    return play([*parts, Part(4, 47, timpani, 110), Part(DRUM_CHANNEL, 48, [*roll, *crash], 112)], 96)


def effects_applause_telephone() -> np.ndarray:
    """Applause, and a telephone that rings through it (General MIDI 126 and 124)."""
    applause = [(0.0, 12.0, 60, 116), (0.4, 12.0, 64, 92), (1.1, 12.0, 57, 80)]
    ring = [(2.0, 1.6, 57, 118), (5.0, 1.6, 57, 118)]
    return play([Part(0, 126, applause, 96), Part(1, 124, ring, 110)], 92, start_s=0.6)


# --- speech: espeak-ng -------------------------------------------------------------------------------


def speak(voice: str, text: str, *, speed: int, pitch: int) -> np.ndarray:
    """``text`` as (samples,) at 44.1 kHz without leading silence. The synthesizer works at 22.05 kHz."""
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder, "speech.wav")
        _call(["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "-w", wav, "--stdin"], text)
        samples, rate = audio.read(wav)
    mono = audio.resample(samples, rate, SAMPLE_RATE)[0]
    first = int(np.flatnonzero(np.abs(mono) > 0.01)[0])
    return mono[max(0, first - 400) :]


def room(dry: np.ndarray, rng: np.random.Generator, decay_s: float, wet: float) -> np.ndarray:
    """``dry`` in a made-up room: exponentially decaying noise as its impulse response."""
    t = np.arange(int(1.5 * decay_s * SAMPLE_RATE)) / SAMPLE_RATE
    response = rng.standard_normal(len(t)) * 10 ** (-3 * t / decay_s) * (1 - np.exp(-t / 0.004))
    response *= wet / np.sqrt(np.sum(response**2))
    return dry + fftconvolve(dry, response)[: len(dry)]


def _recorded(voice: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """5 s of ``voice`` with a microphone's hiss 60 dB below its peak: no digital silence in the pauses."""
    return _fit(voice) + 1e-3 * np.max(np.abs(voice)) * rng.standard_normal(NUM_SAMPLES)


def speech_english(rng: np.random.Generator) -> np.ndarray:
    text = "The six o'clock ferry was late again, so we shared our fish and chips with the gulls."
    return _recorded(room(speak("en-gb", text, speed=172, pitch=38), rng, decay_s=0.25, wet=0.25), rng)


def speech_german(rng: np.random.Generator) -> np.ndarray:
    text = "Zwischen den Zeilen stand zum Schluss nur ein einziges Wort: Frühstücksei?"
    return _recorded(room(speak("de+f2", text, speed=168, pitch=62), rng, decay_s=0.6, wet=0.35), rng)


def speech_helicopter(rng: np.random.Generator) -> np.ndarray:
    """Spanish, spoken fast against the noise of a helicopter (General MIDI 125)."""
    text = "¡Atención, señores! El helicóptero aterriza ahora; aléjense despacio de la pista."
    voice = _fit(room(speak("es+f4", text, speed=198, pitch=55), rng, decay_s=0.15, wet=0.2))
    voice = np.tanh(0.35 * voice / _rms(voice))  # a public address system
    rotor = _fit(play([Part(0, 125, [(0.0, 14.0, 60, 120), (0.3, 14.0, 67, 80)], 120)], 92, start_s=1.5))
    wash = _band(rng.standard_normal(NUM_SAMPLES), 300, 15000) * (
        1 + 0.5 * np.sin(_seconds() * 2 * np.pi * 11)
    )
    return voice / _rms(voice) + 0.4 * rotor / _rms(rotor) + 0.13 * wash / _rms(wash)


# --- ambiences: numpy --------------------------------------------------------------------------------


def _seconds() -> np.ndarray:
    return np.arange(NUM_SAMPLES) / SAMPLE_RATE


def _rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(x**2)))


def _mixed(parts: Sequence[tuple[np.ndarray, float]]) -> np.ndarray:
    """The sum of sounds, each brought to the level beside it."""
    return np.sum([gain * part / _rms(part) for part, gain in parts], axis=0)


def _fit(x: np.ndarray) -> np.ndarray:
    """Exactly 5 s: cut, or zeros behind."""
    return np.pad(x[:NUM_SAMPLES], (0, max(0, NUM_SAMPLES - len(x))))


def _band(x: np.ndarray, low: float, high: float, slope: float = 0.0) -> np.ndarray:
    """``x`` with smooth edges at ``low`` and ``high`` Hz and ``slope`` dB per octave between them."""
    f = np.maximum(np.fft.rfftfreq(len(x), 1 / SAMPLE_RATE), 1.0)
    gain = (f / 1000) ** (slope / 6.02) / np.sqrt((1 + (low / f) ** 6) * (1 + (f / high) ** 6))
    return np.fft.irfft(np.fft.rfft(x) * gain, len(x))


def _slow(rng: np.random.Generator, highest_hz: float, depth: float) -> np.ndarray:
    """A positive gain that wanders, with standard deviation ``depth`` (natural log)."""
    wander = _band(rng.standard_normal(NUM_SAMPLES), 0.1, highest_hz)
    return np.exp(depth * wander / np.std(wander))


def _bursts(
    rng: np.random.Generator,
    per_second: float,
    sound: Callable[[np.random.Generator], np.ndarray],
    spread: float,
) -> np.ndarray:
    """Random events at Poisson times; their levels are log-normal with standard deviation ``spread``."""
    out = np.zeros(NUM_SAMPLES)
    for at in rng.integers(0, NUM_SAMPLES, rng.poisson(per_second * DURATION_S)):
        event = sound(rng)[: NUM_SAMPLES - at]
        out[at : at + len(event)] += event * np.exp(spread * rng.standard_normal())
    return out


def _ping(rng: np.random.Generator, low: float, high: float, decay_s: float) -> np.ndarray:
    """A decaying, noisy tone burst between ``low`` and ``high`` Hz."""
    t = np.arange(int(7 * decay_s * SAMPLE_RATE)) / SAMPLE_RATE
    tone = np.sin(2 * np.pi * low * (high / low) ** rng.random() * t + 2 * np.pi * rng.random())
    return (tone + 0.6 * rng.standard_normal(len(t))) * np.exp(-t / decay_s) * (1 - np.exp(-t / 0.0002))


def _bell(fundamental: float, at_s: float) -> np.ndarray:
    """A church bell's partials (hum, prime, tierce, quint, nominal, and above), struck at ``at_s``."""
    t = _seconds() - at_s
    partials = [(0.5, 0.5, 3.0), (1.0, 0.8, 2.2), (1.19, 0.9, 1.6), (1.5, 0.4, 1.2), (2.0, 1.0, 1.2)]
    partials += [(2.67, 0.5, 0.7), (3.01, 0.4, 0.6), (4.17, 0.4, 0.4), (5.43, 0.3, 0.3), (6.8, 0.2, 0.2)]
    struck = np.zeros(NUM_SAMPLES)
    for ratio, level, decay_s in partials:
        for detune in (0.9994, 1.0007):
            wave = np.sin(2 * np.pi * fundamental * ratio * detune * t) * np.exp(-np.maximum(t, 0) / decay_s)
            struck += level * wave
    return struck * (t >= 0) * (1 - np.exp(-np.maximum(t, 0) / 0.002))


def effects_fire_bell(rng: np.random.Generator) -> np.ndarray:
    """A crackling fire close by; further off, a bell strikes twice."""
    snaps = _bursts(rng, 38, lambda r: _ping(r, 1500, 9000, 0.0012), 0.9)
    pops = _bursts(rng, 5, lambda r: 2.2 * _ping(r, 500, 2500, 0.006), 0.5)
    hiss = _band(rng.standard_normal(NUM_SAMPLES), 2000, 18000, -2) * _slow(rng, 12, 0.5)
    roar = _band(rng.standard_normal(NUM_SAMPLES), 40, 900, -5) * _slow(rng, 6, 0.35)
    bell = _bell(523.0, 0.7) + 0.9 * _bell(440.0, 2.9)
    near = np.tanh(1.4 * (snaps + pops))
    return _mixed([(near, 1.0), (roar, 0.55), (hiss, 0.2), (bell, 0.7)])


def ambience_rain_thunder(rng: np.random.Generator) -> np.ndarray:
    """Rain on leaves, a gutter that drips, thunder that rolls in, and a bird that does not mind."""
    rain = _band(rng.standard_normal(NUM_SAMPLES), 400, 16000, -1.5) * _slow(rng, 1.0, 0.15)
    leaves = _bursts(rng, 420, lambda r: _ping(r, 3000, 12000, 0.0015), 0.5)
    drips = _bursts(rng, 6, lambda r: _ping(r, 900, 2600, 0.008), 0.2)
    t = _seconds()
    thunder = _band(rng.standard_normal(NUM_SAMPLES), 25, 220, -4) * _slow(rng, 3, 0.6)
    thunder *= np.interp(t, [0, 1.6, 1.8, 2.6, 5], [0.02, 0.05, 1.0, 0.6, 0.1])
    bird = np.zeros(NUM_SAMPLES)
    calls = (0.4, 3400), (0.62, 3900), (0.8, 3100), (3.5, 3600), (3.72, 4100), (3.9, 3300), (4.1, 3300)
    for at, base in calls:
        u = np.clip((t - at) / 0.14, 0, 1)
        frequency = base * (1 + 0.35 * np.sin(np.pi * u) + 0.05 * np.sin(2 * np.pi * 38 * t))
        bird += np.sin(np.pi * u) ** 2 * np.sin(2 * np.pi * np.cumsum(frequency) / SAMPLE_RATE)
    return _mixed([(rain, 0.55), (leaves, 0.6), (drips, 0.15), (thunder, 0.6), (bird, 0.3)])


def ambience_street(rng: np.random.Generator) -> np.ndarray:
    """Wind and distant traffic; a car passes with falling pitch and tyre noise; a reversing truck beeps."""
    t = _seconds()
    distance = np.sqrt(4.0**2 + (14.0 * (t - 2.4)) ** 2)
    speed_away = np.gradient(distance, 1 / SAMPLE_RATE)
    doppler = 343 / (343 + speed_away)
    phase = 2 * np.pi * np.cumsum(62 * doppler * (1 + 0.01 * np.sin(2 * np.pi * 0.8 * t))) / SAMPLE_RATE
    engine = np.zeros(NUM_SAMPLES)
    for k in range(1, 40):
        engine += np.sin(k * phase + 2 * np.pi * rng.random()) / k**1.1 * (1 + 0.8 * (k % 2 == 0))
    engine *= 1 + 0.3 * np.sin(phase / 2)
    tyres = _band(rng.standard_normal(NUM_SAMPLES), 600, 14000, -2)
    car = (engine / _rms(engine) + 1.3 * tyres / _rms(tyres)) * 4.0 / distance
    wind = _band(rng.standard_normal(NUM_SAMPLES), 60, 1200, -4) * _slow(rng, 0.9, 0.5)
    traffic = _band(rng.standard_normal(NUM_SAMPLES), 30, 8000, -6) * _slow(rng, 0.6, 0.2)
    beep = np.where((t % 1.0) < 0.5, 1.0, 0.0)
    beep = np.convolve(beep, np.hanning(400) / np.hanning(400).sum(), "same")
    beep *= np.sin(2 * np.pi * 1250 * t) + 0.3 * np.sin(2 * np.pi * 3750 * t)
    return _mixed([(car, 1.0), (wind, 0.45), (traffic, 0.35), (room(beep, rng, 0.8, 0.6), 0.2)])


# --- the set -----------------------------------------------------------------------------------------

CLIPS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "ambience_rain_thunder": ambience_rain_thunder,
    "ambience_street": ambience_street,
    "effects_applause_telephone": lambda _: effects_applause_telephone(),
    "effects_fire_bell": effects_fire_bell,
    "music_brass": lambda _: music_brass(),
    "music_drums": lambda _: music_drums(),
    "music_jazz": lambda _: music_jazz(),
    "music_piano": lambda _: music_piano(),
    "music_strings": lambda _: music_strings(),
    "speech_english": speech_english,
    "speech_german": speech_german,
    "speech_helicopter": speech_helicopter,
}


def finish(samples: np.ndarray) -> np.ndarray:
    """(1, 220500) float32: 5 s, faded at both ends, at -18 LUFS unless a peak would pass -1.5 dBFS."""
    import pyloudnorm  # type: ignore[import-untyped, unused-ignore]

    x = _fit(np.asarray(samples, dtype=np.float64))
    x = sosfilt(np.array([[1, -1, 0, 1, -0.9985, 0]]), x)  # no DC
    for fade_s, where in ((0.005, slice(None)), (0.06, slice(None, None, -1))):
        ramp = np.sin(np.linspace(0, np.pi / 2, int(fade_s * SAMPLE_RATE))) ** 2
        x[where][: len(ramp)] *= ramp
    x *= 10 ** ((TARGET_LUFS - pyloudnorm.Meter(SAMPLE_RATE).integrated_loudness(x)) / 20)
    x *= min(1.0, CEILING / np.max(np.abs(x)))
    return x[None].astype(np.float32)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python tools/make_demo.py", description=__doc__)
    parser.add_argument("out", type=Path, help="folder for the twelve FLAC files and demo.jsonl")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        for program in ("espeak-ng", "fluidsynth"):
            if shutil.which(program) is None:
                raise UserError(f"{program} is not installed: apt-get install {program}")
        if not SOUND_FONT.is_file():
            raise UserError(f"{SOUND_FONT} is missing: apt-get install fluid-soundfont-gm")
        make(options.out, options.seed)
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def make(out: Path, seed: int = 0) -> None:
    """Write the twelve clips and their manifest ``demo.jsonl`` to the folder ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, (name, clip) in enumerate(CLIPS.items()):
        path = out / f"{name}.flac"
        audio.write(path, finish(clip(np.random.default_rng([seed, number]))), SAMPLE_RATE, subtype="pcm16")
        rows.append({"path": path.name, "category": name.partition("_")[0], "sha256": file_sha256(path)})
    (out / "demo.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
