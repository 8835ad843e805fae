"""Which videos a configuration means, and how clips are cut from them."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from keras_sspcab.cli._backend import import_backend
from keras_sspcab.cli._data import INFERENCE_BATCH_SIZE, describe_names
from keras_sspcab.runs import Config, ConfigError, RunFolder

if TYPE_CHECKING:
    from keras_sspcab.data.video import Video, VideoFolder


class VideoSource:
    """Clips of videos, for hosts that look at video; see `Source`."""

    noun = "videos"

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

    def split(self, config: Config) -> "VideoFolder":
        """Lists the videos, some of the normal ones held out."""
        self.check(config)
        folder = scan_videos(config)
        from keras_sspcab.data.video import check_videos

        given = (*folder.train, *folder.validation)
        checked = check_videos(given, on_error=config.data.on_error)
        good = {video.name: video for video in checked}
        folder = dataclasses.replace(
            folder,
            train=tuple(good[v.name] for v in folder.train if v.name in good),
            validation=tuple(
                good[v.name] for v in folder.validation if v.name in good
            ),
        )
        if folder.validation:
            return folder
        return folder.with_validation(
            config.data.validation_fraction, config.data.validation_seed
        )

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

    def fingerprint(self, folder: "VideoFolder") -> str:
        """Names the training videos and their lengths."""
        names = [
            f"{video.path} {video.num_frames} frames" for video in folder.train
        ]
        return describe_names(names, folder.root, self.noun)


def scan_videos(config: Config) -> "VideoFolder":
    """Lists the videos.

    Raises:
        ValueError: If the folder cannot be used.
    """
    import_backend()
    from keras_sspcab.data.video import scan_video_folder

    if not config.data.path:
        raise ConfigError(
            "There is no folder of videos. Give one with --data, or as "
            "`path` in the section [data] of a configuration file"
        )
    return scan_video_folder(config.data.path, config.data.layout)


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
