"""Videos, what is known about them, and folders of them."""

import dataclasses
import os
from typing import Any

from keras_sspcab.checks import standardize_choice
from keras_sspcab.data.file_system import enumerate_names
from keras_sspcab.data.folder import SampleFolder
from keras_sspcab.preprocessing import Preprocessing


@dataclasses.dataclass(frozen=True)
class LabelSource:
    """Where the frame labels of a video are written; see `frame_labels`.

    Attributes:
        path: A file with labels or with intervals of abnormal frames.
        entry: Position of the video in a file that lists the intervals of
            several videos, from 0; None for a file of this video alone.
        offset: Position of its first frame in a file with the labels of all
            frames of several videos; None for a file of this video alone.

    Example:
    >>> LabelSource("ped2.mat", entry=3).entry
    3
    """

    path: str
    entry: int | None = None
    offset: int | None = None


@dataclasses.dataclass(frozen=True)
class Video:
    """One video and what is known about it.

    Attributes:
        name: Its name, unique in its split.
        path: A folder of frames, or a video file.
        kind: `"frames"` or `"file"`.
        num_frames: How many frames it has; None if that is not known yet.
        labels: Where its frame labels are, or None.
        masks: Where its pixel masks are: a folder of images, a `.npy` or a
            `.mat` file, one mask a frame; or None.
        tracks: Text file with the boxes of its anomalies, as
            `keras_sspcab.metrics.read_tracks` reads it; or None.
        preprocessing: How its frames are read, for a trained model
            `model.preprocessing`; see `fit_frame`.

    Example:
    >>> Video("01", "videos/01.avi").has_ground_truth
    False
    """

    name: str
    path: str
    kind: str = "file"
    num_frames: int | None = None
    labels: LabelSource | None = None
    masks: str | None = None
    tracks: str | None = None
    preprocessing: Preprocessing = dataclasses.field(
        default_factory=Preprocessing
    )

    def __post_init__(self) -> None:
        standardize_choice(self.kind, ("frames", "file"), "kind")

    @property
    def has_ground_truth(self) -> bool:
        """Whether labels or masks say which frames are abnormal."""
        return self.labels is not None or self.masks is not None


@dataclasses.dataclass(frozen=True)
class VideoFolder(SampleFolder[Video]):
    """The videos below a folder, by split, as `scan_video_folder` returns it.

    `with_validation` holds out whole videos: their frames resemble each other.

    Example:
    >>> train = tuple(Video(f"{i}", f"videos/{i}.avi") for i in range(9))
    >>> len(VideoFolder("videos", "plain", train).with_validation(0.2).train)
    7
    """

    items = "videos"
    advice = ". Cut a long video into parts, or add another one."

    def name_of(self, sample: Video) -> str:
        """Returns the name of a video."""
        return sample.name

    def table(self) -> list[tuple[str | int, ...]]:
        """Returns counts of videos, frames and ground truth by split."""
        sources = ("labels", "masks", "tracks")
        rows: list[tuple[str | int, ...]] = []
        for split, videos in self.splits.items():
            frames: Any = [video.num_frames for video in videos]
            total = "?" if None in frames else sum(frames)
            known = [sum(bool(getattr(v, s)) for v in videos) for s in sources]
            if videos:
                rows.append((split, len(videos), total, *known))
        return [("split", "videos", "frames", *sources), *rows]

    def remarks(self) -> list[str]:
        """Names test videos that have no ground truth."""
        unknown = [v.name for v in self.test if not v.has_ground_truth]
        if not unknown:
            return []
        return [
            f"test videos without ground truth: {len(unknown)} "
            f"({enumerate_names(unknown)})"
        ]


def make_video(path: str | os.PathLike[str]) -> Video:
    """Makes a `Video` of a single folder of frames or video file.

    Its name is that of the file without its extension.

    Example:
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     make_video(folder).kind
    'frames'
    """
    path = os.path.expanduser(os.fspath(path))
    if not os.path.exists(path):
        raise ValueError(f"The video does not exist. Received: path={path!r}")
    base = os.path.basename(os.path.abspath(path))
    if os.path.isdir(path):
        return Video(base, path, "frames")
    return Video(os.path.splitext(base)[0], path, "file")


def standardize_videos(videos: Any) -> tuple[Video, ...]:
    """Returns a tuple of at least one video, or raises a ValueError."""
    given = (videos,) if isinstance(videos, Video) else tuple(videos)
    wrong = [video for video in given if not isinstance(video, Video)]
    if wrong or not given:
        raise ValueError(
            "The `videos` argument must hold at least one `Video`, as "
            "`scan_video_folder` and `make_video` give. Received: "
            + (repr(wrong[0]) if wrong else "videos with no entry")
        )
    return given
