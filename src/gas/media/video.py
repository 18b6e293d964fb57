"""Video: from bytes to the frames that a model sees, and no others.

Frames are numbered from 0 in the order of display, as a decoder puts them out from the start of the file. Where
only some of them are wanted, the packets between are not decoded if the file's own index allows it: decoding
begins at the last key frame before a wanted one, and pictures that no other picture needs are skipped. Frames
that nobody wants are never converted. The pixels are those of a decode from the start.

A rotation by quarters in the file's display matrix (telephones write it) is applied, as players do and as for
the EXIF rotation of pictures. Where the stream breaks, the video ends: what was decoded before counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from types import TracebackType
from typing import Final, Self, TypeAlias, TypeVar

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from gas.errors import MediaRejected
from gas.media.container import open_container, refusing
from gas.media.image import RGB, crop_box, preprocess_image, resize_crop, sniff_mime
from gas.media.limits import DEFAULT_LIMITS, Deadline, MediaLimits

__all__ = [
    "VIDEO_MIMES",
    "VideoReader",
    "decode_video",
    "frame_indices",
    "load_video",
    "preprocess_video",
    "video_reader",
]

_FORMATS: Final = {"video/mp4": "mp4", "video/webm": "matroska", "video/x-msvideo": "avi"}
VIDEO_MIMES: Final = frozenset(_FORMATS)
"""Content types that :func:`decode_video` takes."""

_DEFAULT_RATE: Final = 30.0
_MAX_RATE: Final = 1000.0

# Every packet of these holds exactly one picture that is shown, so packets can be counted instead of pictures.
_ONE_PICTURE_A_PACKET: Final = frozenset({"h264", "hevc", "vp9", "libvpx-vp9", "av1", "libdav1d"})
_MAX_REORDERING: Final = 256

_T = TypeVar("_T")
_Packet: TypeAlias = "av.Packet[av.VideoStream]"


def frame_indices(num_frames: int, frame_rate: float | None, source_rate: float) -> list[int]:
    """Which frames of a file a model sees.

    Args:
        num_frames: How many it asks for, at least 1.
        frame_rate: At which rate it asks for them, frames a second; None: the first consecutive ones.
        source_rate: Of the file, frames a second.

    Returns:
        Indices from 0, not falling: floor(i * source_rate / frame_rate). A model that asks for a higher rate
        than the file's sees frames twice.
    """
    if frame_rate is None:
        return list(range(num_frames))
    step = Fraction(source_rate).limit_denominator(100_000) / Fraction(frame_rate).limit_denominator(100_000)
    return [int(index * step) for index in range(num_frames)]


class VideoReader:
    """An open video; a context manager, and an iterable of its frames, one at a time, in order.

    Args:
        data: Encoded MP4, WebM or AVI; hostile until proven otherwise.
        limits: What the video may cost.
        deadline: Of the whole reading; by the limits when left out.

    Attributes:
        width: Pixels, as the header declares them, before any rotation.
        height: Pixels, as the header declares them, before any rotation.
        rate: Frames a second, on average; 30 when the file doesn't say, or nothing possible.
        frames: How many the header declares; None when it doesn't.

    Raises:
        MediaRejected: ``unsupported``, ``too_large``, ``undecodable``, ``too_slow`` or ``too_much_memory``; on
            opening and while iterating.
    """

    def __init__(self, data: bytes, limits: MediaLimits = DEFAULT_LIMITS, deadline: Deadline | None = None) -> None:
        limits.check_bytes(len(data))
        mime = sniff_mime(data)
        if mime not in _FORMATS:
            raise MediaRejected("The video is not MP4, WebM or AVI.", code="unsupported")
        self._limits = limits
        self._deadline = deadline or Deadline(limits.max_decode_seconds)
        self._container = open_container(data, _FORMATS[mime], limits, self._deadline, what="The video", look=False)
        try:
            with refusing("The video"):
                if not self._container.streams.video:
                    raise MediaRejected("There is no video track.", code="undecodable")
                self._stream = self._container.streams.video[0]
                self.width, self.height = self._stream.codec_context.width, self._stream.codec_context.height
                limits.check_size(self.width, self.height)
                rate = float(self._stream.average_rate or 0)
                self.rate = rate if 0 < rate <= _MAX_RATE else _DEFAULT_RATE
                self.frames = self._stream.frames or None
        except MediaRejected:
            self._container.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._container.close()

    def __iter__(self) -> Iterator[RGB]:
        """All frames in order, upright, uint8 (h, w, 3), RGB, writable; at most as many as the limits allow."""
        convert = _Converter()
        for _, frame in self.in_order(range(self._limits.max_frames)):
            yield convert.upright(frame)

    def in_order(self, wanted: range | frozenset[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        """The wanted frames of a decode from the start, with their numbers; may be called once.

        A stream that breaks ends there, unless nothing was decoded before.
        """
        last = max(wanted)
        count = 0
        try:
            with refusing("The video"):
                for frame in self._container.decode(self._stream):
                    self._deadline.check()
                    # The size may change in the middle of a stream.
                    self._limits.check_size(frame.width, frame.height)
                    if count in wanted:
                        yield count, frame
                    count += 1
                    if count > last:
                        return
        except MediaRejected as error:
            if error.error_code != "undecodable" or count == 0:
                raise

    def by_index(self, wanted: frozenset[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        """The wanted frames by the packets' times, decoding as little as possible; may be called once.

        Raises:
            _Unsure: The file's times don't say which packet holds which frame: decode from the start.
        """
        context = self._stream.codec_context
        # AVI has no times of display.
        if context.name not in _ONE_PICTURE_A_PACKET or self._container.format.name == "avi":
            raise _Unsure
        demuxer = self._container.demux(self._stream)
        packets, times = self._index(demuxer, max(wanted))
        place = {packet.pts: at for at, packet in enumerate(packets)}
        keys = [(at, packet.pts or 0) for at, packet in enumerate(packets) if packet.is_keyframe]
        targets = [(index, times[index]) for index in sorted(wanted) if index < len(times)]
        asked = {time for _, time in targets}
        found: dict[int, av.VideoFrame] = {}
        at = 0
        for index, time in targets:
            start = max(key for key, shown in keys if key <= place[time] and shown <= time)
            if start > at:
                context.flush_buffers()
                at = start
            while time not in found:
                self._deadline.check()
                packet = packets[at] if at < len(packets) else next(demuxer, None)
                at += 1
                if packet is None or packet.size == 0:
                    frames = context.decode(None)
                else:
                    context.skip_frame = "DEFAULT" if packet.pts in asked else "NONREF"
                    frames = context.decode(packet)
                for frame in frames:
                    self._limits.check_size(frame.width, frame.height)
                    if frame.pts in asked:
                        found[frame.pts] = frame
                if (packet is None or packet.size == 0) and time not in found:
                    raise _Unsure
            yield index, found.pop(time)

    def _index(self, demuxer: Iterator[_Packet], last: int) -> tuple[list[_Packet], list[int]]:
        """Packets in the order of the file, and the times of the shown ones in the order of display.

        Reads until the first ``last + 1`` times can't change any more: a packet is never shown before it is
        decoded, so none that comes later lies before the decoding time of the one just read.
        """
        packets: list[_Packet] = []
        times: list[int] = []
        for packet in demuxer:
            self._deadline.check()
            if packet.size == 0:
                break
            if packet.pts is None or packet.dts is None or packet.pts < packet.dts or packet.is_corrupt:
                raise _Unsure
            packets.append(packet)
            if not packet.is_discard:
                times.append(packet.pts)
            if len(times) > last and sum(time < packet.dts for time in times) > last:
                break
            if len(packets) > last + _MAX_REORDERING:
                raise _Unsure
        first_is_key = bool(packets) and packets[0].is_keyframe
        if not times or not first_is_key or min(times) < (packets[0].pts or 0) or len(set(times)) < len(times):
            raise _Unsure
        return packets, sorted(times)


def video_reader(data: bytes, limits: MediaLimits = DEFAULT_LIMITS) -> VideoReader:
    """Open a video to go through its frames one at a time; to be used in a ``with`` statement.

    Raises:
        MediaRejected: As :class:`VideoReader`.
    """
    return VideoReader(data, limits)


def decode_video(
    data: bytes, num_frames: int = 16, frame_rate: float | None = None, limits: MediaLimits = DEFAULT_LIMITS
) -> list[RGB]:
    """Decode the frames that a model asks for, and stop there.

    Args:
        data: Encoded MP4, WebM or AVI; hostile until proven otherwise.
        num_frames: How many frames, at least 1.
        frame_rate: See :func:`frame_indices`.
        limits: What the video may cost.

    Returns:
        At least one and at most ``num_frames`` frames, upright, uint8 (h, w, 3), RGB; fewer when the file is
        shorter, or broken after them. A frame that is seen twice is one array twice.

    Raises:
        MediaRejected: ``unsupported``, ``too_large``, ``undecodable``, ``too_slow`` or ``too_much_memory``.
    """
    return _select(data, num_frames, frame_rate, limits, _Converter().upright)


def load_video(
    data: bytes,
    target: tuple[int, int],
    num_frames: int = 16,
    frame_rate: float | None = None,
    limits: MediaLimits = DEFAULT_LIMITS,
    out: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """A model's input straight from the file: :func:`preprocess_video` of :func:`decode_video`, pixel for pixel.

    Args:
        data: As for :func:`decode_video`.
        target: Height and width that the model asks for.
        num_frames: How many frames it asks for, at least 1.
        frame_rate: See :func:`frame_indices`.
        limits: What the video may cost.
        out: Where the input is to go, uint8 (num_frames, 3, H, W); a new array when left out.

    Returns:
        uint8, (num_frames, 3, H, W), RGB; ``out`` when that was given.

    Raises:
        MediaRejected: As :func:`decode_video`; nobody knows what ``out`` holds then.
    """
    convert = _Converter()
    room = np.empty((num_frames, 3, *target), np.uint8) if out is None else out
    # Frames come in their order as a rule, each once: then they land where they belong, and nothing is moved.
    places = iter(room)

    def into(frame: av.VideoFrame) -> NDArray[np.uint8]:
        place = next(places, None)
        return convert.model_input(frame, np.empty((3, *target), np.uint8) if place is None else place)

    frames = _select(data, num_frames, frame_rate, limits, into)
    shown = [frames[min(index, len(frames) - 1)] for index in range(num_frames)]
    if [_address(frame) for frame in shown] != [_address(place) for place in room]:
        room[:] = np.stack(shown)
    return room


def _address(array: NDArray[np.uint8]) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def preprocess_video(frames: list[RGB], target: tuple[int, int], num_frames: int = 16) -> NDArray[np.uint8]:
    """A model's input from decoded frames: each as a picture, the last one repeated when there are too few.

    Args:
        frames: At least one, from :func:`decode_video`.
        target: Height and width that the model asks for.
        num_frames: How many it asks for.

    Returns:
        uint8, (num_frames, 3, H, W), RGB.
    """
    out = np.empty((num_frames, 3, *target), np.uint8)
    for index in range(num_frames):
        out[index] = preprocess_image(frames[index], target) if index < len(frames) else out[index - 1]
    return out


class _Unsure(Exception):
    """The packets' times don't tell the frames' numbers."""


class _Converter:
    """Decoded frames to RGB, with what one conversion can leave to the next."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()
        self._part: av.VideoFrame | None = None

    def upright(self, frame: av.VideoFrame) -> RGB:
        """The whole picture, (h, w, 3), its own memory, turned as the file says."""
        return np.array(_turned(self._rgb(frame), frame.rotation), order="C")

    def model_input(self, frame: av.VideoFrame, out: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """As :func:`preprocess_image` of the whole picture, into ``out``; only what the crop shows is converted."""
        target = (out.shape[1], out.shape[2])
        odd = frame.width % 2 or frame.height % 2
        if odd or round(frame.rotation / 90) % 4 or frame.format.name not in ("yuv420p", "yuvj420p"):
            np.copyto(out, preprocess_image(_turned(self._rgb(frame), frame.rotation), target))
            return out
        top, left, height, width = crop_box(frame.height, frame.width, target)
        # The colour of two by two pixels is one sample, and the converter takes blocks of 32 pixels: cut there,
        # each pixel is computed as in the whole picture.
        row, column = top // 2 * 2, left // 32 * 32
        rows = min(frame.height, -(-(top + height) // 2) * 2) - row
        columns = min(frame.width, -(-(left + width) // 32) * 32) - column
        if rows * columns < 0.8 * frame.width * frame.height:
            pixels = self._rgb(self._cut(frame, row, column, rows, columns), padded=columns % 32 == 0)
        else:
            row = column = 0
            pixels = self._rgb(frame, padded=frame.width % 32 == 0)
        return resize_crop(pixels[top - row :][:height, left - column :][:, :width], target, out)

    def _rgb(self, frame: av.VideoFrame, *, padded: bool = False) -> RGB:
        """A view of the converted picture; valid until nobody holds it.

        A fourth channel without meaning (``padded``) makes both conversion and resizing cheaper; the first three are
        the same in whole blocks of 32 pixels, and not in the rest of a row. One thread: waking others costs more than
        it saves, and the other cores have clips of their own.
        """
        channels = 4 if padded else 3
        converted = self._reformatter.reformat(frame, format="rgb0" if padded else "rgb24", threads=1)
        plane = converted.planes[0]
        flat = np.frombuffer(plane, np.uint8)  # type: ignore[call-overload]
        rows = flat.reshape(-1, plane.line_size)[: frame.height, : channels * frame.width]
        picture: RGB = np.lib.stride_tricks.as_strided(
            rows, (frame.height, frame.width, channels), (plane.line_size, channels, 1), writeable=False
        )
        return picture

    def _cut(self, frame: av.VideoFrame, row: int, column: int, rows: int, columns: int) -> av.VideoFrame:
        """A part of a frame of 4:2:0 as a frame; even rows and columns. The next cut overwrites it."""
        part = self._part
        if part is None or (part.width, part.height, part.format.name) != (columns, rows, frame.format.name):
            part = self._part = av.VideoFrame(columns, rows, frame.format.name)
        part.colorspace, part.color_range = frame.colorspace, frame.color_range
        for index, (source, target) in enumerate(zip(frame.planes, part.planes, strict=True)):
            half = 1 if index else 0
            above = np.frombuffer(source, np.uint8).reshape(-1, source.line_size)  # type: ignore[call-overload]
            below = np.frombuffer(target, np.uint8).reshape(-1, target.line_size)  # type: ignore[call-overload]
            below[: rows >> half, : columns >> half] = above[
                row >> half : (row + rows) >> half, column >> half : (column + columns) >> half
            ]
        return part


def _turned(picture: RGB, degrees: float) -> RGB:
    """Turn counter-clockwise by the nearest number of quarters; a view."""
    return np.rot90(picture, round(degrees / 90) % 4)


def _select(
    data: bytes,
    num_frames: int,
    frame_rate: float | None,
    limits: MediaLimits,
    convert: Callable[[av.VideoFrame], _T],
) -> list[_T]:
    """Decode and convert each wanted frame once; the answers in the order of :func:`frame_indices`."""
    deadline = Deadline(limits.max_decode_seconds)
    with VideoReader(data, limits, deadline) as reader:
        wanted = [index for index in frame_indices(num_frames, frame_rate, reader.rate) if index < limits.max_frames]
        numbers = frozenset(wanted)
        if len(numbers) <= max(wanted):
            try:
                with refusing("The video"):
                    got = {index: convert(frame) for index, frame in reader.by_index(numbers)}
                return [got[index] for index in wanted if index in got]
            except _Unsure:
                pass
            except MediaRejected as error:
                if error.error_code != "undecodable":
                    raise
        else:
            got = {index: convert(frame) for index, frame in reader.in_order(numbers)}
            return _found(got, wanted)
    with VideoReader(data, limits, deadline) as reader:
        return _found({index: convert(frame) for index, frame in reader.in_order(numbers)}, wanted)


def _found(got: dict[int, _T], wanted: list[int]) -> list[_T]:
    if not got:
        raise MediaRejected("The video has no frames.", code="undecodable")
    return [got[index] for index in wanted if index in got]
