from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from gas.datasets.audit import audit_pair, side_features
from gas.datasets.audit_audio import AUDIO_FEATURES
from gas.datasets.normalise_audio import normalise_audio
from gas.errors import MediaRejected
from gas.media.audio import decode_audio
from gas.types import Modality


def voice(seed: int, rate: int, seconds: float, gain: float = 0.3) -> np.ndarray:
    """Tones that come and go, below 3 kHz, with some noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(rate * seconds)) / rate
    tones = sum(np.sin(2 * np.pi * f * t + p) for f, p in zip(rng.uniform(150, 3000, 6), rng.uniform(0, 6, 6)))  # noqa: B905
    swell = 0.6 + 0.4 * np.sin(2 * np.pi * rng.uniform(1, 3) * t)
    sound = gain * swell * tones / 6 + rng.normal(0, 0.001, len(t))
    return np.asarray(sound, np.float32)


def file(sound: np.ndarray, rate: int, kind: str = "WAV", subtype: str | None = None) -> bytes:
    sink = io.BytesIO()
    soundfile.write(sink, sound, rate, format=kind, subtype=subtype)
    return sink.getvalue()


def named(data: bytes) -> dict[str, float]:
    return dict(zip(AUDIO_FEATURES, side_features(data, Modality.AUDIO).tolist(), strict=True))


def test_the_result_is_a_plain_wav_of_fixed_rate_and_length() -> None:
    for rate, kind in ((8000, "WAV"), (22050, "FLAC"), (44100, "OGG"), (48000, "MP3")):
        data = normalise_audio(file(voice(1, rate, 3.3), rate, kind), seed=1, origin="a")
        info = soundfile.info(io.BytesIO(data))
        assert (info.format, info.subtype, info.samplerate, info.channels) == ("WAV", "PCM_16", 16000, 1)
        assert info.frames == 32_000
        assert len(data) == 44 + 2 * 32_000


def test_the_same_arguments_give_the_same_bytes_and_other_draws_others() -> None:
    source = file(voice(1, 16000, 2), 16000)
    first = normalise_audio(source, seed=1, origin="a", seconds=1)
    assert first == normalise_audio(source, seed=1, origin="a", seconds=1)
    assert len({first, *(normalise_audio(source, seed=s, origin=o, seconds=1) for s, o in ((2, "a"), (1, "b")))}) == 3
    dealt = {normalise_audio(source, seed=1, origin="a", seconds=1, rank=rank) for rank in range(5)}
    assert len(dealt) == 5


def test_the_sound_stays_the_sound_up_to_one_gain_and_in_its_place() -> None:
    sound = voice(3, 16000, 2)
    out, _ = decode_audio(normalise_audio((sound, 16000), seed=1, origin="o", rank=0))
    out, reference = out.astype(float), sound - sound.mean()
    assert np.corrcoef(out, reference)[0, 1] > 0.98
    assert np.argmax(np.correlate(out[8000:12000], reference[7900:12100], "valid")) == 100


def test_all_bands_end_at_the_poorest() -> None:
    for rate in (8000, 16000, 48000):
        noise = np.random.default_rng(rate).normal(0, 0.1, 2 * rate).astype(np.float32)
        out, _ = decode_audio(normalise_audio((noise, rate), seed=1, origin="o"))
        power = np.abs(np.fft.rfft(out)) ** 2
        frequencies = np.fft.rfftfreq(len(out), 1 / 16000)
        assert power[frequencies > 3900].sum() / power.sum() < 1e-4
        assert power[(frequencies > 2500) & (frequencies < 3200)].sum() / power.sum() > 0.05
    wide = np.random.default_rng(1).normal(0, 0.1, 32_000).astype(np.float32)
    out, _ = decode_audio(normalise_audio((wide, 16000), seed=1, origin="o", poorest_rate=16000))
    power = np.abs(np.fft.rfft(out)) ** 2
    assert power[np.fft.rfftfreq(len(out), 1 / 16000) > 5000].sum() / power.sum() > 0.05


def test_level_offset_and_digital_silence_tell_nothing() -> None:
    loud, quiet = voice(1, 16000, 2, 1.0), voice(1, 16000, 2, 0.01) + 0.2
    loud[:4000] = 0
    outs = [decode_audio(normalise_audio((s, 16000), seed=1, origin="o"))[0] for s in (loud, quiet)]
    levels = [20 * np.log10(np.sqrt(np.mean(out.astype(float) ** 2))) for out in outs]
    assert all(-28.6 < level < -21.4 for level in levels)
    assert abs(levels[0] - levels[1]) < 0.5
    assert all(abs(out.mean()) < 1e-3 for out in outs)
    assert (outs[0][:3000] != 0).mean() > 0.1


def test_peaks_are_never_cut_for_the_level() -> None:
    clicks = np.zeros(32_000, np.float32)
    clicks[::4000] = 0.9
    out, _ = decode_audio(normalise_audio((clicks, 16000), seed=1, origin="o"))
    assert np.abs(out).max() <= 1
    assert (np.abs(out) > 0.999).sum() == 0


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (file(voice(1, 16000, 1.9), 16000), "too_short"),
        (file(voice(1, 6000, 3), 6000), "low_rate"),
        (file(np.zeros(40_000, np.float32), 16000), "silent"),
        (file(np.full(40_000, 0.5, np.float32), 16000), "silent"),
        (b"no sound", "unsupported"),
        (b"", "undecodable"),
    ],
)
def test_what_would_tell_its_class_or_is_broken_is_refused(data: bytes, code: str) -> None:
    with pytest.raises(MediaRejected) as caught:
        normalise_audio(data, seed=1, origin="o")
    assert caught.value.error_code == code


@pytest.mark.parametrize("changes", [{"poorest_rate": 4000}, {"poorest_rate": 44100}, {"seconds": 0}])
def test_options_that_cannot_be_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="rate"):
        normalise_audio((voice(1, 16000, 3), 16000), seed=1, origin="o", **changes)  # type: ignore[arg-type]


def test_the_audit_sees_rates_lengths_and_tags_and_not_after_normalisation() -> None:
    real = [file(voice(i, 8000, 2.1 + 0.1 * i, 0.1), 8000) for i in range(15)]
    fake = [file(voice(90 + i, 22050, 3, 0.9), 22050) for i in range(15)]
    raw = audit_pair(real, fake)
    assert raw.balanced_accuracy == 1
    assert raw.telling[0][0] == "rate"
    clean = [
        [normalise_audio(data, seed=2, origin=f"{side}{n}", seconds=1, rank=n) for n, data in enumerate(media)]
        for side, media in (("r", real), ("f", fake))
    ]
    assert audit_pair(*clean).passes


def test_side_features_say_what_the_header_says() -> None:
    sound = voice(1, 16000, 1)
    wav = named(file(np.stack([sound, sound], axis=1), 16000, subtype="PCM_24"))
    assert (wav["is_wav"], wav["bits"], wav["channels"]) == (1, 24, 2)
    assert wav["seconds"] == pytest.approx(1)
    assert wav["rate"] == pytest.approx(np.log2(16000))
    assert named(file(sound, 16000, "FLAC"))["is_flac"] == 1
    assert named(file(sound, 16000, "OGG"))["is_ogg"] == 1
    assert named(file(sound, 16000, "MP3"))["is_mp3"] == 1
    plain = file(sound, 16000)
    listed = plain[:36] + b"LIST" + (4).to_bytes(4, "little") + b"INFO" + plain[36:]
    assert named(listed)["chunks"] != named(plain)["chunks"]
    assert named(listed)["header_bytes"] == named(plain)["header_bytes"] + 12
    for broken in (b"", b"RIFF0000WAVE", b"\x89PNG\r\n\x1a\n", plain[:20]):
        with pytest.raises(MediaRejected):
            named(broken)


def test_all_bands_begin_above_what_telephones_cut_off() -> None:
    for rate in (8000, 48000):
        time = np.arange(2 * rate) / rate
        sound = (0.3 * np.sin(2 * np.pi * 60 * time) + 0.1 * np.sin(2 * np.pi * 400 * time)).astype(np.float32)
        out, _ = decode_audio(normalise_audio((sound, rate), seed=1, origin="o"))
        power = np.abs(np.fft.rfft(out)) ** 2
        frequencies = np.fft.rfftfreq(len(out), 1 / 16000)
        assert power[frequencies < 90].sum() / power.sum() < 1e-3
        assert power[(frequencies > 390) & (frequencies < 410)].sum() / power.sum() > 0.9
