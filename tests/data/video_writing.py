"""Writes small videos, as folders of frames and as files."""

from fractions import Fraction

import numpy as np
import pytest
from PIL import Image


def numbered(count, size=(12, 16), first=0):
    """Gray frames, each of one value that grows by 2 from frame to frame."""
    values = (2 * np.arange(count) + first).astype("uint8")
    return np.broadcast_to(
        values[:, None, None, None], (count, *size, 1)
    ).copy()


def noise(count, size=(12, 16), channels=1, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, *size, channels), dtype="uint8")


def write_frames(folder, frames, extension="png", first=0, digits=3, prefix=""):
    """Writes one image a frame and returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames, first):
        pixels = frame[..., 0] if frame.shape[-1] == 1 else frame
        name = f"{prefix}{number:0{digits}d}.{extension}"
        Image.fromarray(pixels).save(folder / name)
    return folder


def write_video(
    path, frames, codec="ffv1", pixel_format=None, rate=25, times=None
):
    """Encodes frames; ffv1, the default, keeps every value.

    `times` are those at which they are shown, in milliseconds.
    """
    av = pytest.importorskip("av")
    path.parent.mkdir(parents=True, exist_ok=True)
    is_gray = frames[0].shape[-1] == 1
    if pixel_format is None:
        pixel_format = "gray" if is_gray else "bgr0"
        pixel_format = pixel_format if codec == "ffv1" else "yuv420p"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(rate))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixel_format
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, pixels in enumerate(frames):
            if is_gray:
                kind = "gray" if pixels.dtype == np.uint8 else "gray16le"
                frame = av.VideoFrame.from_ndarray(pixels[..., 0], kind)
            else:
                kind = "rgb24" if pixels.dtype == np.uint8 else "rgb48le"
                frame = av.VideoFrame.from_ndarray(pixels, kind)
            if times is not None:
                frame.time_base = Fraction(1, 1000)
                frame.pts = times[number]
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def set_display_matrix(path, a, b, c, d):
    """Says in an MP4 or MOV file how its frames are turned for display."""
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 44
    for place, value in ((0, a), (1, b), (3, c), (4, d)):
        entry = slice(start + 4 * place, start + 4 * place + 4)
        content[entry] = (value << 16).to_bytes(4, "big", signed=True)
    path.write_bytes(content)


#: What is said of a file of 40 frames whose last packet is cut: some FFmpegs
#: leave that packet out, others fail.
CUT_PACKET = r"(has 40 frames.*truncated|is broken at frame).*num_frames=\d"


def truncate(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
