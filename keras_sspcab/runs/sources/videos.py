"""Clips of videos as the data of a run."""

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from keras_sspcab.data.batching import images_at_once
from keras_sspcab.data.video import (
    Video,
    VideoFolder,
    check_videos,
    clip_dataset,
    count_clips,
    scan_video_folder,
)
from keras_sspcab.data.video.reading import measure_white
from keras_sspcab.hosts import ScoredFrame, score_frames
from keras_sspcab.preprocessing import Preprocessing
from keras_sspcab.runs.config import ConfigError, InspectionConfig
from keras_sspcab.runs.sources.base import Source


class VideoSource(Source):
    """Clips of videos, for hosts that look at videos."""

    noun = "videos"

    def list_samples(
        self, path: str, layout: str, require_train: bool = True
    ) -> VideoFolder:
        folder = scan_video_folder(path, layout, require_train)
        parts: Any = {k: self.as_read(v) for k, v in folder.splits.items()}
        return dataclasses.replace(folder, **parts)

    def as_read(self, videos: Sequence[Video]) -> tuple[Video, ...]:
        """Returns videos whose frames are read as the model does."""
        how = self.preprocessing
        return tuple(dataclasses.replace(v, preprocessing=how) for v in videos)

    def measure_white(self, samples: Sequence[Video]) -> Preprocessing:
        return measure_white(samples)

    def check_samples(
        self, samples: Sequence[Video], on_error: str
    ) -> tuple[Video, ...]:
        """Decodes all videos, and counts their frames."""
        return check_videos(samples, on_error=on_error)

    def check(self) -> None:
        """Refuses settings that are for images."""
        super().check()
        for key in ("fit", "patch_size", "flip", "symmetric", "brightness"):
            self.refuse(f"data.{key}", "images")
        for key in InspectionConfig.model_fields:
            self.refuse(f"inspection.{key}", "images")
        if self.data.cache == "memory":
            raise ConfigError(
                "Frames of videos are kept on disk, not in memory. "
                "Received: data.cache='memory'. Choose 'disk' or 'none'"
            )
        ignored = self.changed_objects()
        if ignored and self.host.kind == "video":
            # No error: comparisons give all their hosts the same settings.
            warnings.warn(
                f"{self.config.model.name!r} looks at whole frames and "
                f"ignores {', '.join(ignored)}",
                stacklevel=2,
            )

    def check_evaluation(self) -> None:
        """Refuses a setting that is for images."""
        self.refuse("evaluation.masks", "images")

    def identity(self, sample: Video) -> str:
        """Path and length."""
        return f"{sample.path} {sample.num_frames} frames"

    def epoch_size(self, folder: VideoFolder) -> int:
        """Clips in an epoch."""
        data = self.data
        return count_clips(
            folder.train, data.clip_length, stride=data.stride, step=data.step
        )

    def training_datasets(
        self, folder: VideoFolder, with_pseudo_abnormal: bool = False
    ) -> Callable[[int], Any]:
        """Clips in random order, cut from frames that are decoded once."""
        cache: bool | str = False
        if self.data.cache != "none" and self.run is not None:
            cache = self.run.file("cache")

        def make_dataset(epoch: int) -> Any:
            return self.clips(
                folder.train,
                step=self.data.step,
                batch_size=self.config.training.batch_size,
                shuffle=True,
                seed=self.config.training.seed,
                epoch=epoch,
                cache=cache,
            )

        return make_dataset

    def scoring_dataset(
        self, samples: Sequence[Video], is_reread: bool = False
    ) -> Any:
        """All clips in order."""
        size = images_at_once(self.data.image_size)
        return self.clips(samples, batch_size=size)

    def clips(self, videos: Sequence[Video], **options: Any) -> Any:
        """Returns a dataset of clips for the host; see `clip_dataset`."""
        data = self.data
        return clip_dataset(
            self.as_read(videos),
            data.clip_length,
            data.image_size,
            data.channels,
            stride=data.stride,
            **options,
        )

    def score_frames(
        self, model: Any, videos: Sequence[Video], **options: Any
    ) -> Iterator[ScoredFrame]:
        """Scores frames; options are those of `hosts.score_frames`."""
        options.setdefault("stride", self.data.stride)
        return score_frames(model, videos, **options)
