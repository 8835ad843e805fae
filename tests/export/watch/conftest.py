"""Cameras, and videos with something in them."""

import pytest

from tests.data.video_writing import write_video
from tests.export.watch.cameras import Camera, frame

pytest.importorskip("av")


@pytest.fixture
def camera():
    with Camera() as camera:
        yield camera


@pytest.fixture(scope="session")
def video(tmp_path_factory):
    """Forty frames at 25 a second; 10 to 19 are anomalous."""
    path = tmp_path_factory.mktemp("video") / "door.mkv"
    return write_video(path, [frame(10 <= i < 20) for i in range(40)])


@pytest.fixture
def quick_retries(monkeypatch):
    """Tries again at once what is tried again later."""
    from keras_sspcab.export.watch import source, webhook

    monkeypatch.setattr(source, "_WAITS", (0.02,))
    monkeypatch.setattr(webhook, "_WAITS", (0.01, 0.02, 0.04))
