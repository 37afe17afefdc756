"""Sounds: recorded speech out of a package, a melody of plucked strings, and what networks are fed of them."""

from __future__ import annotations

import wave
from functools import cache
from pathlib import Path

import numpy as np

from .packages import Package

RATE = 16_000

RECORDING = Package(
    "pyannote.audio",
    "3.4.0",
    "36e38f058059f46da3478dda581cda53d9d85a21173a3e70bbdbc3ba93b5e1b7",
    ("pyannote/audio/sample/sample.*",),
)
"""Half a minute of two people on the telephone, and who speaks when (RTTM)."""


@cache
def speech(cache: Path) -> np.ndarray:
    """The recording: 30 s at `RATE`, float32 in [-1, 1]."""
    with wave.open(str(RECORDING.fetch(cache) / "pyannote/audio/sample/sample.wav")) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768


def spoken(cache: Path) -> np.ndarray:
    """Whether someone speaks, for each sample of `speech`: bool."""
    lines = (RECORDING.fetch(cache) / "pyannote/audio/sample/sample.rttm").read_text().splitlines()
    result = np.zeros(len(speech(cache)), bool)
    for _, _, _, start, duration, *_ in map(str.split, lines):
        result[int(float(start) * RATE) : int((float(start) + float(duration)) * RATE)] = True
    return result


def parts(sound: np.ndarray, length: int, count: int) -> np.ndarray:
    """``count`` stretches of ``length`` values, evenly spread over the sound: (count, length)."""
    starts = np.linspace(0, len(sound) - length, count).astype(int)
    return np.stack([sound[start : start + length] for start in starts])


def noisy(sound: np.ndarray, decibels: float, rng: np.random.Generator) -> np.ndarray:
    """The sound with noise whose power falls by 3 dB an octave, ``decibels`` under the sound."""
    spectrum = np.fft.rfft(rng.normal(size=sound.shape[-1]))
    noise = np.fft.irfft(spectrum / np.sqrt(np.arange(1, len(spectrum) + 1)), sound.shape[-1])
    noise *= np.std(sound) / np.std(noise) * 10 ** (-decibels / 20)
    return np.clip(sound + noise, -1, 1).astype(np.float32)


def melody(rate: int, seconds: float, seed: int) -> np.ndarray:
    """Plucked strings (Karplus and Strong, 1983) on a minor pentatonic scale, two at a time: float32 in [-1, 1]."""
    rng = np.random.default_rng(seed)
    result = np.zeros(int(rate * seconds))
    start = 0
    while start < len(result):
        for pitch in rng.choice([45, 48, 50, 52, 55, 57, 60, 62, 64, 67, 69], 2, replace=False):
            tone = _plucked(440 * 2 ** ((pitch - 69) / 12), rate, min(int(1.2 * rate), len(result) - start), rng)
            result[start : start + len(tone)] += tone
        start += int(rate * rng.choice([0.15, 0.3, 0.45]))
    return (result / np.abs(result).max() * 0.8).astype(np.float32)


def _plucked(frequency: float, rate: int, length: int, rng: np.random.Generator) -> np.ndarray:
    period = int(rate / frequency)
    rounds = [rng.uniform(-1, 1, period)]
    while len(rounds) * period < length:
        rounds.append(0.498 * (rounds[-1] + np.roll(rounds[-1], 1)))
    return np.concatenate(rounds)[:length]


def spectra(sound: np.ndarray, size: int, hop: int, window: np.ndarray) -> np.ndarray:
    """Power of each frame in each frequency: (frames, size // 2 + 1)."""
    frames = np.lib.stride_tricks.sliding_window_view(sound, size)[::hop]
    return np.abs(np.fft.rfft(frames * window)) ** 2


def mel_frames(sound: np.ndarray) -> np.ndarray:
    """Power in 40 bands of Slaney's mel scale, of 25 ms of sound every 10 ms: (frames, 40), float32."""
    size, hop, bands = RATE // 40, RATE // 100, 40
    power = spectra(np.pad(sound, size // 2), size, hop, np.hanning(size + 1)[:-1])
    # Linear up to 1 kHz, then logarithmic: 27 steps for a factor of 6.4.
    mels = np.linspace(0, 15 + 27 * np.log(RATE / 2 / 1000) / np.log(6.4), bands + 2)
    # Each band is a triangle of area one.
    edges = np.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))
    frequencies = np.fft.rfftfreq(size, 1 / RATE)
    low, middle, high = (edges[i : i + bands, None] for i in range(3))
    filters = np.minimum((frequencies - low) / (middle - low), (high - frequencies) / (high - middle)).clip(0)
    return (power @ (filters * 2 / (high - low)).T).astype(np.float32)
