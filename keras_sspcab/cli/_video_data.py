"""Which videos a configuration means, and how clips are cut from them."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from keras_sspcab.cli._sources import INFERENCE_BATCH_SIZE, Source
from keras_sspcab.runs import Config, ConfigError, RunFolder

if TYPE_CHECKING:
    from keras_sspcab.data.video import Video, VideoFolder


class VideoSource(Source):
    """Clips of videos, for hosts that look at videos."""

    noun = "videos"

    def list_samples(self, path: str, layout: str) -> "VideoFolder":
        """Lists videos."""
        from keras_sspcab.data.video import scan_video_folder

        return scan_video_folder(path, layout)

    def check_samples(
        self, samples: "Sequence[Video]", on_error: str
    ) -> "tuple[Video, ...]":
        """Decodes all videos, and counts their frames."""
        from keras_sspcab.data.video import check_videos

        return check_videos(samples, on_error=on_error)

    def check(self, config: Config) -> None:
        """Refuses settings that are for images."""
        data = config.data
        for key, value, default in (
            ("patch_size", data.patch_size, 0),
            ("flip", data.flip, False),
        ):
            if value != default:
                raise ConfigError(
                    f"`data.{key}` is for images, and {config.model.name!r} "
                    f"looks at videos. Received: data.{key}={value!r}. Leave "
                    "it out"
                )
        if data.cache == "memory":
            raise ConfigError(
                "Frames of videos are kept on disk, not in memory. "
                "Received: data.cache='memory'. Choose 'disk' or 'none'"
            )

    def describe(self, sample: "Video") -> str:
        """Path and length."""
        return f"{sample.path} {sample.num_frames} frames"

    def count(self, config: Config, folder: "VideoFolder") -> int:
        """Clips in an epoch."""
        from keras_sspcab.data.video import count_clips

        data = config.data
        return count_clips(
            folder.train, data.clip_length, stride=data.stride, step=data.step
        )

    def training_datasets(
        self, run: RunFolder, config: Config, folder: "VideoFolder"
    ) -> Callable[[int], Any]:
        """Clips in random order, cut from frames that are decoded once."""
        cache = False if config.data.cache == "none" else run.file("cache")

        def make_dataset(epoch: int) -> Any:
            return clips_of(
                folder.train,
                config,
                step=config.data.step,
                batch_size=config.training.batch_size,
                shuffle=True,
                seed=config.training.seed,
                epoch=epoch,
                cache=cache,
            )

        return make_dataset

    def scoring_dataset(
        self, samples: "Sequence[Video]", config: Config
    ) -> Any:
        """All clips in order."""
        return clips_of(samples, config, batch_size=INFERENCE_BATCH_SIZE)


def clips_of(videos: "Sequence[Video]", config: Config, **options: Any) -> Any:
    """Returns a dataset of clips as a configuration cuts them."""
    from keras_sspcab.data.video import clip_dataset

    data = config.data
    return clip_dataset(
        videos,
        data.clip_length,
        data.image_size,
        data.channels,
        stride=data.stride,
        **options,
    )
