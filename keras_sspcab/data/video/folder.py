"""What a folder of videos holds: videos with ground truth, in splits."""

import dataclasses
import os

from keras_sspcab.checks import standardize_choice
from keras_sspcab.data.file_system import enumerate_names
from keras_sspcab.data._hold_out import hold_out

#: A video is a folder of frames or a video file.
KINDS = ("frames", "file")


@dataclasses.dataclass(frozen=True)
class LabelSource:
    """Where the frame labels of a video are written; see `frame_labels`.

    Attributes:
        path: A file with labels or with intervals of abnormal frames.
        entry: Position of the video in a file that lists the intervals of
            several videos, from 0; None for a file of this video alone.
        offset: Position of its first frame in a file with the labels of all
            frames of several videos; None for a file of this video alone.
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
    """

    name: str
    path: str
    kind: str = "file"
    num_frames: int | None = None
    labels: LabelSource | None = None
    masks: str | None = None
    tracks: str | None = None

    def __post_init__(self) -> None:
        standardize_choice(self.kind, KINDS, "kind")

    @property
    def has_ground_truth(self) -> bool:
        """Whether labels or masks say which frames are abnormal."""
        return self.labels is not None or self.masks is not None


@dataclasses.dataclass(frozen=True)
class VideoFolder:
    """The videos below a folder, by split; see `scan_video_folder`.

    Attributes:
        root: The folder.
        layout: `"ucsd"`, `"avenue"`, `"shanghaitech"` or `"plain"`.
        train: Normal videos to train on.
        validation: Normal videos held out of training, to calibrate with.
        test: Videos to evaluate on; may be empty.
        notes: What else is worth knowing, such as files that were left out.
    """

    root: str
    layout: str
    train: tuple[Video, ...]
    validation: tuple[Video, ...] = ()
    test: tuple[Video, ...] = ()
    notes: tuple[str, ...] = ()

    def with_validation(
        self, fraction: float = 0.1, seed: int = 0
    ) -> "VideoFolder":
        """Holds whole videos out of training; the summary says so.

        Frames of one video resemble each other, so videos are not cut. Which
        ones are held out follows from the seed and their names alone.

        Args:
            fraction: Share of the training videos, above 0 and below 1. At
                least one video is held out and at least one stays.
            seed: Another seed draws another split.

        Returns:
            A new `VideoFolder`; this one is not changed.

        Raises:
            ValueError: If there is a validation split already, there are less
                than two training videos, or the fraction is out of range.
        """
        return hold_out(
            self,
            lambda video: video.name,
            fraction,
            seed,
            "videos",
            ". Cut a long video into parts, or add another one.",
        )

    def summary(self) -> str:
        """Returns a table of counts by split, and the notes."""
        header = ("split", "videos", "frames", "labels", "masks", "tracks")
        rows: list[tuple[str, ...]] = [header]
        splits = {
            "train": self.train,
            "validation": self.validation,
            "test": self.test,
        }
        for split, videos in splits.items():
            if not videos:
                continue
            counts = [video.num_frames for video in videos]
            known = [count for count in counts if count is not None]
            frames = str(sum(known)) if len(known) == len(counts) else "?"
            sources = [
                sum(getattr(video, source) is not None for video in videos)
                for source in ("labels", "masks", "tracks")
            ]
            counts_of = (str(count) if count else "-" for count in sources)
            rows.append((split, str(len(videos)), frames, *counts_of))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [f"{self.root} (layout: {self.layout})"]
        for split, *texts in rows:
            cells = zip(texts, widths[1:], strict=True)
            lines.append(
                f"  {split:<{widths[0]}}"
                + "".join(f"  {text:>{width}}" for text, width in cells)
            )
        unknown = [v.name for v in self.test if not v.has_ground_truth]
        if unknown:
            lines.append(
                f"  test videos without ground truth: {len(unknown)} "
                f"({enumerate_names(unknown)})"
            )
        lines += [f"  {note}" for note in self.notes]
        return "\n".join(lines)


def make_video(path: str | os.PathLike[str], name: str | None = None) -> Video:
    """Makes a `Video` of a single folder of frames or video file.

    Args:
        path: The folder or file.
        name: Its name; that of the file without its extension by default.

    Raises:
        ValueError: If there is nothing at `path`.
    """
    path = os.path.expanduser(os.fspath(path))
    if not os.path.exists(path):
        raise ValueError(f"The video does not exist. Received: path={path!r}")
    base = os.path.basename(os.path.normpath(path))
    if os.path.isdir(path):
        return Video(name or base, path, "frames")
    return Video(name or os.path.splitext(base)[0], path, "file")
