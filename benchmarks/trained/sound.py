"""Networks that listen: who speaks and whether, how well it sounds, pitch and notes, wake words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from . import audio, graphs
from .network import Feed, Network, Samples, SamplesOf, run
from .packages import Package

SILERO = Package(
    "silero-vad",
    "6.2.3",
    "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
    ("silero_vad/data/*.onnx",),
)
BASIC_PITCH = Package(
    "basic-pitch",
    "0.4.0",
    "738adb503aae7fdfc7d1e1511aa0ce35052315f260a19531ef4c356708425db0",
    ("basic_pitch/saved_models/*",),
)
SPEECHMOS = Package(
    "speechmos",
    "0.0.1.1",
    "31c4c9d3234f6ee10102edff74333014c50006a3f389daf7ecacae34e68ebbf7",
    ("speechmos/*.onnx",),
)
SWIFT_F0 = Package(
    "swift-f0", "0.3.0", "d7240c7c94b1d3e8f0e0cd2701b79be89a0f23a19cd5f944895a6518ecad72f3", ("swift_f0/model.onnx",)
)
RESEMBLYZER = Package(
    "Resemblyzer",
    "0.1.4",
    "8f12eb2f1a9982d32e8db7856de754709b59c93a77bcf0ff536584b619a9dd1f",
    ("resemblyzer/pretrained.pt",),
)
WAKE_WORDS = Package(
    "pyopen-wakeword",
    "1.1.0",
    "754347a59de2b3d378a0cbc404a8b41164036e74fa1c185f88056974e4bfb6b4",
    ("pyopen_wakeword/models/*.tflite",),
    ("3.11", "none", "manylinux_2_35_x86_64"),
)

SAMPLES = 4
STREAMS = 8
"""Recordings that a detector of speech follows at once."""


def _silero(folder: Path, sound: np.ndarray) -> list[Feed]:
    """Every 32 ms of streams of sound (streams, length), behind 2 ms of what came before, with the detector's state."""
    model = onnx.load(str(folder / "silero_vad/data/silero_vad_16k_op15.onnx"))
    state = np.zeros((2, len(sound), 128), np.float32)
    before = np.pad(sound, ((0, 0), (64, 0)))
    feeds = []
    for start in range(0, sound.shape[1] - 511, 512):
        feeds.append({"input": before[:, start : start + 576], "state": state, "sr": np.array(audio.RATE)})
        state = run(model, feeds[-1:])[0]["stateN"]
    return feeds


def _speech_chunks(*, streams: int = STREAMS, rate: bool = True) -> SamplesOf:
    def samples(cache: Path, folder: Path) -> Samples:
        length = 512 * 5 * SAMPLES
        chosen = slice(4, None, 5)
        feeds = _silero(folder, audio.parts(audio.speech(cache), length, streams))[chosen]
        spoken = audio.parts(audio.spoken(cache), length, streams).reshape(streams, -1, 512)
        labels = (spoken.mean(2) > 0.5)[:, chosen].T.ravel()
        if not rate:
            feeds = [{name: feed[name] for name in ("input", "state")} for feed in feeds]
        return Samples(feeds, labels.astype(np.int64))

    return samples


def _speech_sequences(cache: Path, folder: Path) -> Samples:
    feeds = []
    for part in audio.parts(audio.speech(cache), 512 * 64, SAMPLES):
        rows = np.concatenate([feed["input"] for feed in _silero(folder, part[None])])
        feeds.append({"input": rows, "h": np.zeros((1, 1, 128), np.float32), "c": np.zeros((1, 1, 128), np.float32)})
    return Samples(feeds)


def _music(cache: Path, folder: Path) -> Samples:
    length = 43_844  # two seconds less an overlap, as the network was trained
    sounds = [audio.melody(22_050, 6, seed) for seed in range(SAMPLES)]
    return Samples([{"serving_default_input_2:0": audio.parts(sound, length, 2)[..., None]} for sound in sounds])


def _calls(cache: Path, folder: Path) -> Samples:
    rng = np.random.default_rng(0)
    calls = audio.parts(audio.speech(cache), 144_160, 2)
    return Samples(
        [{"input_1": np.stack([audio.noisy(call, level, rng) for call in calls])} for level in (60, 20, 10, 0)]
    )


def _lost_packets(cache: Path, folder: Path) -> Samples:
    rng = np.random.default_rng(0)
    feeds = []
    for share, part in zip((0, 0.02, 0.1, 0.3), audio.parts(audio.speech(cache), 96_000, SAMPLES), strict=True):
        lost = np.repeat(rng.random(len(part) // 320) < share, 320)
        power = audio.spectra(np.where(lost, 0, part), 512, 256, np.hamming(513)[:-1])
        logarithm = np.log(np.maximum(power, 1e-12)) / 20
        rater = rng.normal(size=(1, 64)).astype(np.float32)
        feeds.append({"degraded_audio": logarithm[None, None].astype(np.float32), "rater_embed": rater})
    return Samples(feeds)


def _voices(cache: Path, folder: Path) -> Samples:
    lowest, highest = np.array(46.875, np.float32), np.array(2093.75, np.float32)
    parts = audio.parts(audio.speech(cache)[6 * audio.RATE :], 2 * audio.RATE, SAMPLES)
    return Samples([{"audio": part[None], "fmin": lowest, "fmax": highest} for part in parts])


def _utterances(cache: Path, folder: Path) -> Samples:
    sound = audio.speech(cache)[6 * audio.RATE :]
    sound = sound * 10 ** (-30 / 20) / np.sqrt(np.mean(sound**2))
    parts = audio.parts(sound, 16 * audio.RATE // 10 - 1, 8 * SAMPLES)  # 160 frames
    mels = np.stack([audio.mel_frames(part) for part in parts])
    return Samples([{"mels": rows} for rows in np.split(mels, SAMPLES)])


def _waves(cache: Path, folder: Path) -> Samples:
    """Values of 16-bit sound as floats: 76 frames of mel bands."""
    parts = audio.parts(audio.speech(cache) * 32768, 512 + 75 * 160, SAMPLES)
    return Samples([{"serving_default_input:0": part[None]} for part in parts])


def _mel_windows(cache: Path, folder: Path) -> Samples:
    mel = graphs.from_tflite(folder / "pyopen_wakeword/models/melspectrogram.tflite")
    sound = audio.parts(audio.speech(cache) * 32768, 512 + (75 + 8 * 15) * 160, SAMPLES)
    feeds = []
    for part in sound:
        (frames,) = run(mel, [{"serving_default_input:0": part[None]}])[0].values()
        bands = frames.reshape(-1, 32) / 10 + 2
        windows = np.stack([bands[start : start + 76] for start in range(0, 8 * 16, 8)])
        feeds.append({"serving_default_input_1:0": windows[..., None]})
    return Samples(feeds)


def _embeddings(cache: Path, folder: Path) -> Samples:
    embedding = graphs.from_tflite(folder / "pyopen_wakeword/models/embedding_model.tflite")
    rows = [value for outputs in run(embedding, _mel_windows(cache, folder).feeds) for value in outputs.values()]
    return Samples([{"serving_default_x.1:0": row.reshape(1, 16, 96)} for row in rows])


def _detector(name: str, file: str, what: str, samples: SamplesOf, *, labelled: bool = True) -> Network:
    return Network(
        name,
        SILERO,
        f"silero_vad/data/{file}.onnx",
        f"Silero VAD, {what}: does someone speak in these 32 ms?",
        "the probability of speech, and the state for the next 32 ms",
        samples,
        metric="benchmarks.trained.metrics:decisions" if labelled else "",
        metric_output="output" if labelled else "",
    )


NETWORKS = (
    _detector(
        "silero-vad", "silero_vad_op18_ifless", "opset 18, one If over the rate, LSTM as an operator", _speech_chunks()
    ),
    _detector(
        "silero-vad-opset16", "silero_vad", "opset 16, written by spox, everything inside an If", _speech_chunks()
    ),
    _detector("silero-vad-opset15", "silero_vad_16k_op15", "opset 15, for 16 kHz alone, three Ifs", _speech_chunks()),
    _detector("silero-vad-half", "silero_vad_half", "weights in FP16", _speech_chunks(rate=False)),
    _detector(
        "silero-vad-openvino",
        "silero_vad_openvino_16k",
        "for OpenVINO, one stream",
        _speech_chunks(streams=1, rate=False),
    ),
    _detector("silero-vad-sequence", "silero_vad_16k_sequence", "64 steps at once", _speech_sequences, labelled=False),
    Network(
        "basic-pitch",
        BASIC_PITCH,
        "basic_pitch/saved_models/icassp_2022/nmp.onnx",
        "Spotify's Basic Pitch: which notes sound when, from a constant-Q transform inside the graph",
        "probabilities of notes, their beginnings and contours, for 172 frames",
        _music,
    ),
    Network(
        "basic-pitch-tflite",
        BASIC_PITCH,
        "basic_pitch/saved_models/icassp_2022/nmp.tflite",
        "Basic Pitch from its TensorFlow Lite file",
        "as basic-pitch",
        _music,
        graphs.from_tflite,
    ),
    Network(
        "dnsmos",
        SPEECHMOS,
        "speechmos/dnsmos_models/sig_bak_ovr.onnx",
        "Microsoft's DNSMOS: how people would judge the quality of speech, with a spectrogram inside the graph",
        "opinion scores from 1 to 5: of the signal, the background, overall",
        _calls,
    ),
    Network(
        "plcmos",
        SPEECHMOS,
        "speechmos/plcmos_models/plcmos_v2.onnx",
        "Microsoft's PLCMOS: how bad lost packets sound; convolutions and a GRU",
        "an opinion score from 1 to 5",
        _lost_packets,
    ),
    Network(
        "swift-f0",
        SWIFT_F0,
        "swift_f0/model.onnx",
        "SwiftF0: the pitch of a voice, with a Fourier transform inside the graph and an output in FP64",
        "hertz, and confidence from 0 to 1, of each 16 ms",
        _voices,
    ),
    Network(
        "voice-encoder",
        RESEMBLYZER,
        "resemblyzer/pretrained.pt",
        "Resemblyzer: three LSTMs that say whose voice it is, written in ONNX here",
        "an embedding of length 1; the greater the product of two, the more alike the voices",
        _utterances,
        graphs.voice_encoder,
    ),
    Network(
        "wakeword-mel",
        WAKE_WORDS,
        "pyopen_wakeword/models/melspectrogram.tflite",
        "openWakeWord's spectrogram, from TensorFlow Lite",
        "decibels in 32 mel bands, no more than 80 under the loudest",
        _waves,
        graphs.from_tflite,
    ),
    Network(
        "wakeword-embedding",
        WAKE_WORDS,
        "pyopen_wakeword/models/embedding_model.tflite",
        "Google's embedding of speech, from TensorFlow Lite",
        "96 numbers for 775 ms of sound",
        _mel_windows,
        graphs.from_tflite,
    ),
    Network(
        "wakeword-jarvis",
        WAKE_WORDS,
        "pyopen_wakeword/models/hey_jarvis.tflite",
        "openWakeWord: did someone say 'hey Jarvis'? From TensorFlow Lite, with an If",
        "a probability",
        _embeddings,
        graphs.from_tflite,
    ),
)
