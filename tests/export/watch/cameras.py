"""Cameras that tests make, and a model that needs no training."""

import contextlib
import http.server
import io
import json
import socket
import struct
import threading
import time

import numpy as np
import pytest
from PIL import Image

from keras_sspcab.export.watch import FrameScorer
from keras_sspcab.preprocessing import Preprocessing
from keras_sspcab.scoring import Calibration

SIZE = (48, 64)


def frame(is_anomalous=False, size=SIZE):
    """A gray picture, with a bright square in it if it is anomalous."""
    pixels = np.full((*size, 3), 90, "uint8")
    if is_anomalous:
        pixels[16:32, 24:40] = 250
    return pixels


class Brightness(FrameScorer):
    """Scores a frame by its brightest pixel; 8 or 0 with those above."""

    def __init__(self, delay=0.0, span=1, **calibration):
        known = {"threshold": 3.0, "pixel_threshold": 2.0, **calibration}
        super().__init__(
            "brightness", Calibration(**known), Preprocessing(), span
        )
        self.delay = delay
        self.seen = []

    def score(self, frames):
        self.seen.append([f.number for f in frames])
        time.sleep(self.delay)
        values = (frames[-1].pixels[::8, ::8, 0].astype("float32") - 90) / 20
        score = np.float32(values.max())
        return {
            "anomaly_score": score,
            "anomaly_map": values,
            "is_anomalous": score >= 3,
        }


class Camera:
    """Serves MJPEG over HTTP, as cameras do; a context manager.

    `fault` is what happens from now on: None, "stall" (connections stay open
    and silent), "break" (they end) or "refuse" (new ones are answered by 503).
    """

    def __init__(self, rate=50.0):
        self.rate = rate
        self.fault = None
        self.is_anomalous = False
        self.size = SIZE
        # After so many parts comes one that is no picture.
        self.num_whole = 1_000_000
        self.num_parts = 0
        self.num_connections = 0
        camera = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                camera.num_connections += 1
                if camera.fault == "refuse":
                    return self.send_error(503)
                kind = "multipart/x-mixed-replace; boundary=frame"
                self.send_response(200)
                self.send_header("content-type", kind)
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.stream()
                return None

            def stream(self):
                while camera.fault not in ("break", "refuse"):
                    if camera.fault is None:
                        self.wfile.write(camera.part())
                    time.sleep(1 / camera.rate)

        self._server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), Handler
        )
        self._server.daemon_threads = True
        self.url = (
            f"http://user:secret@127.0.0.1:{self._server.server_port}"
            "/live?key=hidden"
        )

    def part(self):
        buffer = io.BytesIO()
        picture = Image.fromarray(frame(self.is_anomalous, self.size))
        picture.save(buffer, "JPEG", quality=95)
        data = buffer.getvalue()
        self.num_parts += 1
        if self.num_parts % (self.num_whole + 1) == 0:
            data = bytes(500)
        head = "--frame\r\nContent-Type: image/jpeg\r\nContent-Length: "
        return f"{head}{len(data)}\r\n\r\n".encode() + data + b"\r\n"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.fault = "break"
        self._server.shutdown()
        self._server.server_close()


def lines_of(folder):
    """Returns what a watch has written about its alarms, line by line."""
    text = (folder / "alarms.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def wait_until(condition, seconds=20.0):
    """Waits until something holds, and returns it."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it has not come to pass"
        time.sleep(0.01)
    return found


@contextlib.contextmanager
def running(watch):
    """Runs a watch beside the test, and ends it."""
    stop = threading.Event()
    errors = []

    def run():
        try:
            watch.run(stop.is_set)
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield watch
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()
    assert not errors, errors


_SDP = "\r\n".join(
    [
        *("v=0", "o=- 0 0 IN IP4 127.0.0.1", "s=camera", "t=0 0"),
        *("m=video 0 RTP/AVP 96", "a=rtpmap:96 H264/90000"),
        *("a=fmtp:96 packetization-mode=1", "a=control:track1", ""),
    ]
)


class RtspCamera:
    """Serves H.264 over RTSP, in the TCP connection; a context manager.

    Only what FFmpeg asks for is answered.
    """

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = f"rtsp://user:secret@127.0.0.1:{port}/1"
        self._has_ended = threading.Event()

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._has_ended.set()
        self._listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                self._talk(self._listener.accept()[0])

    def _talk(self, connection):
        file = connection.makefile("rb")
        while lines := [x.decode() for x in iter(file.readline, b"\r\n") if x]:
            method = lines[0].split()[0]
            number = next(x for x in lines if x.lower().startswith("cseq"))
            fields, body = [number.strip()], ""
            if method == "DESCRIBE":
                body = _SDP
                fields.append(f"Content-Length: {len(body)}")
            if method == "SETUP":
                transport = "RTP/AVP/TCP;unicast;interleaved=0-1"
                fields += [f"Transport: {transport}", "Session: 1"]
            head = "\r\n".join(["RTSP/1.0 200 OK", *fields, "", ""])
            connection.sendall((head + body).encode())
            if method == "PLAY":
                with contextlib.suppress(OSError), file, connection:
                    return self._send(connection)
        return None

    def _send(self, connection):
        av = pytest.importorskip("av")
        packets = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        packets.bind(("127.0.0.1", 0))
        packets.setblocking(False)
        url = f"rtp://127.0.0.1:{packets.getsockname()[1]}"
        with packets, av.open(url, "w", format="rtp") as container:
            stream = container.add_stream(
                "libx264", 25, {"tune": "zerolatency", "g": "5"}
            )
            stream.height, stream.width = SIZE
            stream.pix_fmt = "yuv420p"
            while not self._has_ended.wait(0.02):
                picture = av.VideoFrame.from_ndarray(frame(), "rgb24")
                container.mux(stream.encode(picture))
                with contextlib.suppress(BlockingIOError):
                    while packet := packets.recv(1 << 16):
                        head = struct.pack(">cBH", b"$", 0, len(packet))
                        connection.sendall(head + packet)
