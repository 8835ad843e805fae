"""Which objects of which videos a configuration means."""

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_sspcab.cli._video_data import VideoSource
from keras_sspcab.runs import Config, ConfigError, ObjectsConfig, RunFolder

if TYPE_CHECKING:
    from keras_sspcab.applications import ObjectModel
    from keras_sspcab.data.flow import FlowSource
    from keras_sspcab.data.objects import (
        CubeFile,
        MaskSource,
        MotionProposals,
        ObjectProposals,
    )
    from keras_sspcab.data.video import Video, VideoFolder

# Objects that are scored at once: crops are small.
_INFERENCE_BATCH_SIZE = 64

# Objects that artifacts are compared on.
_COMPARED_OBJECTS = 16


class ObjectSource(VideoSource):
    """Objects of videos, for hosts that look at objects.

    They are cut out once and kept in the run folder.

    Args:
        run: The run folder; None keeps them in a temporary one, as long as
            this source lives.
    """

    def __init__(self, run: RunFolder | None = None) -> None:
        self._run = run
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    def _folder(self, config: Config) -> str:
        if config.objects.folder:
            return config.objects.folder
        if self._run is not None:
            return self._run.file("objects")
        if self._temporary is None:
            self._temporary = tempfile.TemporaryDirectory()
        return self._temporary.name

    def check(self, config: Config) -> None:
        """Refuses settings that are for images or clips."""
        super().check(config)
        data = config.data
        if data.stride != 1:
            raise ConfigError(
                "`data.stride` is for clips of whole frames, and "
                f"{config.model.name!r} looks at objects. Received: "
                f"data.stride={data.stride}. Leave it out"
            )
        if config.objects.masks and _host_of(config).cube_kind != "crops":
            raise ConfigError(
                "`objects.masks` is for hosts that learn to segment objects. "
                f"Received: objects.masks={config.objects.masks!r} for "
                f"{config.model.name!r}. Leave it out"
            )
        if data.image_size[0] != data.image_size[1]:
            raise ConfigError(
                "`data.image_size`, the size of the crops of objects, must be "
                f"one number. Received: {list(data.image_size)}"
            )

    def cut_out(
        self, videos: "Sequence[Video]", config: Config
    ) -> "tuple[CubeFile, ...]":
        """Cuts the objects of videos out, unless that is done."""
        from keras_sspcab.data.objects import extract_cubes

        folder = self._folder(config)
        os.makedirs(folder, exist_ok=True)
        return extract_cubes(
            videos,
            proposals_of(config.objects),
            flow_of(config.objects),
            folder,
            num_frames=config.data.clip_length,
            size=config.data.image_size[0],
            channels=config.data.channels,
            masks=masks_of(config.objects),
        )

    def count(self, config: Config, folder: "VideoFolder") -> int:
        """Objects in an epoch."""
        from keras_sspcab.data.objects import count_objects

        files = self.cut_out(folder.train, config)
        count = count_objects(files, config.data.step)
        if not count:
            raise ConfigError(
                f"No object was found in the {len(files)} training videos. "
                f"Received: objects.boxes={config.objects.boxes!r}, "
                f"objects.min_area={config.objects.min_area}. Choose other "
                "settings in [objects]"
            )
        return count

    def training_datasets(
        self, run: RunFolder, config: Config, folder: "VideoFolder"
    ) -> Callable[[int], Any]:
        """Objects in random order."""
        from keras_sspcab.data.objects import cube_dataset

        files = self.cut_out(folder.train, config)
        kind = _host_of(config).cube_kind

        def make_dataset(epoch: int) -> Any:
            return cube_dataset(
                files,
                kind,
                batch_size=config.training.batch_size,
                shuffle=True,
                seed=config.training.seed,
                epoch=epoch,
                step=config.data.step,
                with_masks=bool(config.objects.masks),
            )

        return make_dataset

    def scoring_dataset(
        self, samples: "Sequence[Video]", config: Config
    ) -> Any:
        """All objects in order, with the frames that they are in."""
        from keras_sspcab.data.objects import cube_dataset

        return cube_dataset(
            self.cut_out(samples, config),
            _host_of(config).cube_kind,
            batch_size=_INFERENCE_BATCH_SIZE,
            with_index=True,
        )


def proposals_of(objects: ObjectsConfig) -> "ObjectProposals":
    """Returns what finds the objects of a configuration.

    Raises:
        ValueError: If files or a model cannot be used.
    """
    from keras_sspcab.data.objects import BoxFiles, OnnxDetector, merge

    alone = objects.boxes == "motion"
    motion = _motion_of(objects, objects.cover_threshold if alone else None)
    if alone:
        return motion
    is_model = objects.boxes.lower().endswith(".onnx")
    detections = (OnnxDetector if is_model else BoxFiles)(
        objects.boxes,
        min_confidence=objects.min_confidence,
        min_area=objects.min_area,
        cover_threshold=objects.cover_threshold,
    )
    return merge(detections, motion) if objects.with_motion else detections


def _motion_of(
    objects: ObjectsConfig, cover_threshold: float | None
) -> "MotionProposals":
    from keras_sspcab.data.objects import MotionProposals

    return MotionProposals(
        threshold=objects.motion_threshold,
        blur=objects.motion_blur,
        min_area=objects.min_area,
        cover_threshold=cover_threshold,
        closing=objects.motion_closing,
        background_history=objects.background_history or None,
    )


def masks_of(objects: ObjectsConfig) -> "MaskSource | None":
    """Returns what gives the masks of a configuration, or None.

    Raises:
        ValueError: If there is no such folder.
    """
    from keras_sspcab.data.objects import MaskFiles, MotionMasks

    if objects.masks == "motion":
        return MotionMasks(_motion_of(objects, None))
    return MaskFiles(objects.masks) if objects.masks else None


def flow_of(objects: ObjectsConfig) -> "FlowSource":
    """Returns what gives the flow of a configuration.

    Raises:
        ValueError: If there is no such folder.
    """
    from keras_sspcab.data.flow import DISFlow, FlowFiles

    return DISFlow() if objects.flow == "dis" else FlowFiles(objects.flow)


def config_of(model: "ObjectModel", config: Config | None) -> Config:
    """Returns a configuration that gives a model its objects.

    Args:
        model: The host.
        config: That of its run; None for the defaults.
    """
    if config is not None:
        return config
    from keras_sspcab.applications import available_applications
    from keras_sspcab.runs.parsing import load_config

    name = next(
        n
        for n, host in available_applications().items()
        if isinstance(model, host)
    )
    shape = model.arguments["input_shape"]
    length = shape[0] if model.takes_frames else 1
    return load_config(
        None,
        {
            "model.name": name,
            "data.image_size": shape[-2],
            "data.channels": shape[-1],
            "data.clip_length": length,
        },
    )


def objects_to_compare(
    model: "ObjectModel",
    config: Config | None,
    run: RunFolder | None,
    path: Path | None,
) -> tuple[Any, Any]:
    """Returns objects to compare artifacts on, and normal ones.

    Args:
        model: The host.
        config: The configuration of its run, or None.
        run: Its run, or None.
        path: Folder of videos that takes the place of the run's, or None.

    Returns:
        Two datasets of batches.

    Raises:
        ValueError: If videos cannot be used.
    """
    from keras_sspcab.data.objects import cube_dataset
    from keras_sspcab.data.video import check_videos, scan_video_folder

    config = config_of(model, config)
    source = ObjectSource(run)
    if path is None:
        folder = source.scan(config)
    else:
        folder = scan_video_folder(str(path), layout="plain")

    def batches(videos: Any) -> Any:
        files = source.cut_out(check_videos(videos, on_error="skip"), config)
        dataset = cube_dataset(
            files, model.cube_kind, batch_size=_COMPARED_OBJECTS, shuffle=True
        )
        # The files live as long as the dataset.
        dataset.source = source
        return dataset

    return batches(folder.test or folder.train).take(1), batches(folder.train)


def _host_of(config: Config) -> "type[ObjectModel]":
    from keras_sspcab.applications import ObjectModel, get_application

    host = get_application(config.model.name)
    if not issubclass(host, ObjectModel):
        raise TypeError(f"{config.model.name!r} does not look at objects")
    return host
