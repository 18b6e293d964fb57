"""Media that lie, grow, never end or were never media: each generator is named after what it tries.

``HOSTILE`` lists them with what a decoder may answer: the codes of a refusal, and ``"decodes"`` where what is
there may also be taken.
"""

from __future__ import annotations

import functools
import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from gas.media.encode import encode_flac, encode_mp4, encode_wav
from gas.media.image import encode_jpeg, encode_png, encode_webp

DECODES = "decodes"


@dataclass(frozen=True)
class Hostile:
    name: str
    modality: str
    make: Callable[[], bytes]
    answers: frozenset[str]


HOSTILE: dict[str, Hostile] = {}


def hostile(modality: str, *answers: str) -> Callable[[Callable[[], bytes]], Callable[[], bytes]]:
    def register(make: Callable[[], bytes]) -> Callable[[], bytes]:
        made_once = functools.cache(make)
        HOSTILE[make.__name__] = Hostile(make.__name__, modality, made_once, frozenset(answers))
        return made_once

    return register


def picture(height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def moving(frames: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Frames whose brightness names them: ten times the index, wrapped at 250."""
    return [np.full((height, width, 3), 10 * i % 250, np.uint8) for i in range(frames)]


def tone(seconds: float = 1.0, rate: int = 16_000) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format=kind, **options)
    return out.getvalue()


def video_file(frames: list[np.ndarray], container: str, codec: str, **options: str) -> bytes:
    import av

    out = io.BytesIO()
    with av.open(out, mode="w", format=container) as file:
        stream = file.add_stream(codec, rate=10, options={"threads": "1", **options})
        stream.width, stream.height = frames[0].shape[1], frames[0].shape[0]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode(None))
    return out.getvalue()


def patched(data: bytes, mark: bytes, offset: int, value: bytes, last: bool = False) -> bytes:
    at = (data.rindex(mark) if last else data.index(mark)) + offset
    return data[:at] + value + data[at + len(value) :]


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, body: bytes, *chunks: bytes) -> bytes:
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", 8 + len(body)) + kind + body


FTYP = box(b"ftyp", b"isom\0\0\2\0isomiso2mp41")


# Pictures


@hostile("image", "undecodable")
def no_bytes() -> bytes:
    return b""


@hostile("image", "unsupported")
def text_as_picture() -> bytes:
    return b"I am a picture, believe me.\n" * 10


@hostile("image", "unsupported")
def sound_as_picture() -> bytes:
    return encode_wav(tone(0.1), 16_000)


@hostile("image", "undecodable")
def truncated_jpeg() -> bytes:
    data = encode_jpeg(picture())
    return data[: len(data) // 2]


@hostile("image", "undecodable")
def truncated_png() -> bytes:
    data = encode_png(picture())
    return data[: len(data) // 2]


@hostile("image", "undecodable")
def truncated_webp() -> bytes:
    data = encode_webp(picture())
    return data[: len(data) // 2]


@hostile("image", "undecodable")
def truncated_gif() -> bytes:
    data = saved(Image.fromarray(picture()), "GIF")
    return data[: len(data) // 2]


@hostile("image", "too_large")
def gif_bomb_by_its_screen() -> bytes:
    return patched(saved(Image.new("P", (2, 2)), "GIF"), b"GIF8", 6, struct.pack("<HH", 65_535, 65_535))


@hostile("image", "too_large", "undecodable")
def gif_bomb_by_its_first_frame() -> bytes:
    data = saved(Image.new("P", (2, 2)), "GIF")
    return patched(data, b",\0\0\0\0", 5, struct.pack("<HH", 60_000, 60_000), last=True)


@hostile("image", DECODES)
def gif_bomb_of_a_hundred_thousand_frames() -> bytes:
    data = saved(Image.new("P", (2, 2)), "GIF")
    frame = data[data.rindex(b",\0\0\0\0") : -1]
    return data[:-1] + frame * 100_000 + b";"


@hostile("image", "too_large")
def png_of_20000_by_20000() -> bytes:
    return png(20_000, 20_000, zlib.compress(b"\0" * 100_000))


@hostile("image", "undecodable")
def png_whose_pixels_are_missing() -> bytes:
    return png(5_000, 5_000, zlib.compress(b"\0" * 100_000))


@hostile("image", "undecodable", DECODES)
def png_with_a_text_that_unpacks_to_64_megabytes() -> bytes:
    text = png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 26)))
    return png(2, 2, zlib.compress(b"\0" * 14), text)


@hostile("image", "undecodable", DECODES)
def png_with_a_colour_profile_that_unpacks_to_64_megabytes() -> bytes:
    profile = png_chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(1 << 26)))
    return png(2, 2, zlib.compress(b"\0" * 14), profile)


@hostile("image", "unsupported")
def tiff_whose_directories_go_round() -> bytes:
    entry = struct.pack("<HHIHH", 256, 3, 1, 8, 0)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 1) + entry + struct.pack("<I", 8)


@hostile("image", DECODES)
def jpeg_whose_exif_directories_go_round() -> bytes:
    entry = struct.pack("<HHII", 0x8769, 4, 1, 8)
    exif = b"Exif\0\0II*\0" + struct.pack("<I", 8) + struct.pack("<H", 1) + entry + struct.pack("<I", 8)
    return saved(Image.fromarray(picture()), "JPEG", exif=exif)


@hostile("image", "too_large")
def jpeg_of_a_thousand_scans() -> bytes:
    data = encode_jpeg(picture())
    at = data.index(b"\xff\xda")
    return data[:at] + b"\xff\xda\x00\x04\x00\x00" * 1000 + data[at:]


@hostile("image", "too_large")
def progressive_jpeg_that_passes_ninety_times_over_sixteen_megapixels() -> bytes:
    data = saved(Image.new("L", (4000, 4000), 100), "JPEG", progressive=True)
    at = data.rindex(b"\xff\xda")
    return data[:-2] + data[at:-2] * 80 + data[-2:]


@hostile("image", "too_large")
def jpeg_that_declares_65500_by_65500() -> bytes:
    return patched(encode_jpeg(picture()), b"\xff\xc0", 5, struct.pack(">HH", 65_500, 65_500))


@hostile("image", "too_large")
def webp_with_a_canvas_of_16384_by_16384() -> bytes:
    extended = b"VP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + (16_383).to_bytes(3, "little") * 2
    body = b"WEBP" + extended + encode_webp(picture())[12:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


@hostile("image", "too_large")
def bmp_of_two_thousand_million_pixels_a_row() -> bytes:
    return patched(saved(Image.fromarray(picture()), "BMP"), b"BM", 18, struct.pack("<ii", 2**31 - 1, 2))


@hostile("image", "unsupported")
def playlist_as_picture() -> bytes:
    return b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n"


# Videos


@hostile("video", "undecodable")
def no_bytes_of_video() -> bytes:
    return b""


@hostile("video", "unsupported")
def picture_as_video() -> bytes:
    return encode_png(picture())


@hostile("video", "unsupported")
def playlist_as_video() -> bytes:
    return b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n"


@hostile("video", "unsupported")
def list_of_files_as_video() -> bytes:
    return b"ffconcat version 1.0\nfile /etc/hostname\n"


@hostile("video", "undecodable")
def playlist_behind_an_mp4_box() -> bytes:
    return FTYP + playlist_as_video()


@hostile("video", "undecodable", DECODES)
def mp4_whose_pictures_lie_in_another_file() -> bytes:
    data = encode_mp4(moving(5))
    return patched(data, b"url ", 4, b"\0\0\0\0")


@hostile("video", "undecodable")
def mp4_of_a_thousand_nested_boxes() -> bytes:
    inner = b""
    for _ in range(1000):
        inner = box(b"moov", box(b"trak", inner))
    return FTYP + inner


@hostile("video", "undecodable", DECODES)
def mp4_that_declares_four_thousand_million_frames() -> bytes:
    return patched(encode_mp4(moving(5)), b"stsz", 12, b"\xff\xff\xff\xff")


@hostile("video", "undecodable", DECODES)
def mp4_of_a_thousand_million_frames_a_second() -> bytes:
    data = patched(encode_mp4(moving(5), 1.0), b"stts", 16, struct.pack(">I", 1))
    return patched(data, b"mdhd", 16, struct.pack(">I", 1_000_000_000))


@hostile("video", "undecodable", "too_large", DECODES)
def mp4_that_declares_65535_by_65535() -> bytes:
    return patched(encode_mp4(moving(5)), b"avc1", 28, struct.pack(">HH", 65_535, 65_535), last=True)


@hostile("video", "undecodable", "too_large", DECODES)
def avi_that_declares_a_side_of_two_to_the_31() -> bytes:
    data = video_file(moving(5), "avi", "mpeg4")
    return patched(data, b"strf", 12, struct.pack("<ii", 2**31 - 1, 2**31 - 1))


@hostile("video", "undecodable", DECODES)
def matroska_whose_last_cluster_never_ends() -> bytes:
    data = video_file(moving(5), "matroska", "mpeg4")
    cluster = data.rindex(b"\x1f\x43\xb6\x75")
    return data[: cluster + 4] + b"\x01" + b"\xff" * 7 + data[cluster + 12 :] + b"\xa3\x84\x81\0\0\0" * 200_000


@hostile("video", DECODES)
def video_of_a_hundred_frames_with_three_that_decode() -> bytes:
    data = video_file(moving(100), "matroska", "mjpeg")
    starts = [at for at in range(len(data)) if data.startswith(b"\xff\xd8\xff", at)]
    return data[: starts[3] + 20]


@hostile("video", DECODES, "undecodable")
def mp4_whose_frames_are_zeros_after_the_third() -> bytes:
    data = encode_mp4([picture(seed=i) for i in range(100)], keyframes=1)
    start = data.index(b"mdat") + 4
    stop = data.index(b"moov") - 4
    return data[: start + (stop - start) * 3 // 100] + bytes(stop - start - (stop - start) * 3 // 100) + data[stop:]


@hostile("video", "undecodable")
def mp4_without_pictures() -> bytes:
    from gas.media.encode import encode_audio

    return encode_audio(tone(), 16_000, "aac")


@hostile("video", "undecodable")
def truncated_mp4() -> bytes:
    data = encode_mp4(moving(10))
    return data[: len(data) // 2]


# Sounds


@hostile("audio", "undecodable")
def no_bytes_of_sound() -> bytes:
    return b""


@hostile("audio", "unsupported")
def text_as_sound() -> bytes:
    return b"la la la " * 20


@hostile("audio", DECODES, "undecodable")
def wav_that_says_it_is_longer() -> bytes:
    return patched(encode_wav(tone(), 16_000), b"data", 4, struct.pack("<I", 0x7FFF_FFF0))


@hostile("audio", DECODES)
def wav_that_says_it_is_shorter() -> bytes:
    return patched(encode_wav(tone(), 16_000), b"data", 4, struct.pack("<I", 100))


@hostile("audio", "undecodable")
def wav_of_no_samples() -> bytes:
    return patched(encode_wav(tone(), 16_000)[:44], b"data", 4, struct.pack("<I", 0))


@hostile("audio", "undecodable")
def wav_of_values_that_are_not_numbers() -> bytes:
    return encode_wav(np.full(100, np.nan, np.float32), 16_000, "FLOAT")


@hostile("audio", "undecodable")
def wav_of_infinite_values() -> bytes:
    return encode_wav(np.full(100, np.inf, np.float32), 16_000, "FLOAT")


@hostile("audio", "undecodable", "too_large")
def wav_without_channels() -> bytes:
    return patched(encode_wav(tone(), 16_000), b"fmt ", 10, struct.pack("<H", 0))


@hostile("audio", "undecodable", "too_large")
def wav_of_sixty_thousand_channels() -> bytes:
    return patched(encode_wav(tone(), 16_000), b"fmt ", 10, struct.pack("<H", 60_000))


@hostile("audio", "undecodable", "too_large")
def wav_of_four_thousand_megahertz() -> bytes:
    return patched(encode_wav(tone(), 16_000), b"fmt ", 12, b"\xff\xff\xff\xff")


@hostile("audio", "undecodable", "too_large")
def wav_of_no_hertz() -> bytes:
    return patched(encode_wav(tone(), 16_000), b"fmt ", 12, bytes(4))


@hostile("audio", "undecodable", "too_large")
def flac_that_says_it_is_longer() -> bytes:
    data = encode_flac(tone(), 16_000)
    return data[:21] + bytes([data[21] | 0x0F]) + b"\xff\xff\xff\xff" + data[26:]


@hostile("audio", "undecodable")
def truncated_flac() -> bytes:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000).astype(np.float32)
    data = encode_flac(noise, 16_000)
    return data[: len(data) // 2]


@hostile("audio", "too_large")
def flac_that_unpacks_to_five_minutes() -> bytes:
    return encode_flac(np.zeros(300 * 8000, np.float32), 8000)


@hostile("audio", "undecodable")
def mp3_that_is_all_header() -> bytes:
    return b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + bytes(5000)


@hostile("audio", "unsupported")
def playlist_as_sound() -> bytes:
    return b"#EXTM3U\n/etc/hostname\n"


@hostile("audio", "undecodable")
def video_without_sound() -> bytes:
    return encode_mp4(moving(5))
