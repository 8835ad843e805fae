"""Objects of videos as the data of a run."""

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from keras_sspcab.data.flow import DISFlow, FlowFiles
from keras_sspcab.data.objects import (
    BoxFiles,
    CubeFile,
    MaskFiles,
    MergedProposals,
    MotionMasks,
    MotionProposals,
    ObjectProposals,
    OnnxDetector,
    count_objects,
    cube_dataset,
    extract_cubes,
)
from keras_sspcab.data.pseudo_abnormal import add_pseudo_abnormal
from keras_sspcab.data.simulation import EmbeddedTextures, FolderTextures
from keras_sspcab.data.video import Video, VideoFolder
from keras_sspcab.data.video.per_frame import FrameSource
from keras_sspcab.hosts import ScoredFrame, score_objects
from keras_sspcab.imports import require_modules
from keras_sspcab.runs.config import ConfigError, ObjectsConfig
from keras_sspcab.runs.sources.videos import VideoSource

# Objects that are scored at once: crops are small.
_OBJECT_BATCH_SIZE = 64


class ObjectSource(VideoSource):
    """Objects of videos, for hosts that look at objects.

    They are cut out once and kept in the run folder, in that of
    `[objects] folder`, or else as long as this source lives.
    """

    _temporary = ""

    def _folder(self) -> str:
        if self.config.objects.folder:
            return self.config.objects.folder
        if self.run is not None:
            return self.run.file("objects")
        if not self._temporary:
            self._temporary = tempfile.mkdtemp()
            weakref.finalize(self, shutil.rmtree, self._temporary, True)
        return self._temporary

    def list_samples(
        self, path: str, layout: str, require_train: bool = True
    ) -> VideoFolder:
        purpose = "Finding and cutting out objects needs {}"
        require_modules(["cv2"], purpose, "video")
        if self.config.objects.boxes.lower().endswith(".onnx"):
            require_modules(["onnxruntime"], purpose, "export")
        return super().list_samples(path, layout, require_train)

    def check(self) -> None:
        """Refuses settings that are for images or clips."""
        super().check()
        self.refuse("data.stride", "clips of whole frames")
        self.refuse("data.resize", "whole images and frames")
        if not self.host.takes_masks:
            self.refuse("objects.masks", "hosts that segment objects")
        height, width = self.data.image_size
        if height != width:
            raise ConfigError(
                "`data.image_size`, the size of the crops of objects, must be "
                f"one number. Received: {[height, width]}"
            )

    def cut_out(self, videos: Sequence[Video]) -> tuple[CubeFile, ...]:
        """Cuts the objects of videos out, unless that is done."""
        objects, folder = self.config.objects, self._folder()
        os.makedirs(folder, exist_ok=True)
        return extract_cubes(
            self.as_read(videos),
            proposals_of(objects),
            flow_of(objects),
            folder,
            num_frames=self.data.clip_length,
            size=self.data.image_size[0],
            channels=self.data.channels,
            masks=masks_of(objects),
        )

    def epoch_size(self, folder: VideoFolder) -> int:
        """Objects in an epoch."""
        cubes = self.cut_out(folder.train)
        count = count_objects(cubes, self.data.step)
        if not count:
            objects = self.config.objects
            raise ConfigError(
                f"No object was found in the {len(cubes)} training videos. "
                f"Received: objects.boxes={objects.boxes!r}, "
                f"objects.min_area={objects.min_area}. Choose other settings "
                "in [objects]"
            )
        return count

    def training_datasets(
        self, folder: VideoFolder, with_pseudo_abnormal: bool = False
    ) -> Callable[[int], Any]:
        """Objects in random order."""
        objects, training = self.config.objects, self.config.training
        cubes = self.cut_out(folder.train)
        pictures: Any = None
        if with_pseudo_abnormal and objects.pictures:
            pictures = FolderTextures(objects.pictures)
        elif with_pseudo_abnormal:
            pictures = EmbeddedTextures(batch_share=0.0)

        def make_dataset(epoch: int) -> Any:
            dataset = cube_dataset(
                cubes,
                self.host.cube_inputs,
                batch_size=training.batch_size,
                shuffle=True,
                seed=training.seed,
                epoch=epoch,
                step=self.data.step,
                with_masks=bool(objects.masks),
            )
            if pictures is None:
                return dataset
            return add_pseudo_abnormal(
                dataset,
                seed=training.seed,
                epoch=epoch,
                images=pictures,
                speed=objects.speed,
            )

        return make_dataset

    def scoring_dataset(
        self, samples: Sequence[Video], is_reread: bool = False
    ) -> Any:
        """All objects in order, with the frames that they are in."""
        return cube_dataset(
            self.cut_out(samples),
            self.host.cube_inputs,
            batch_size=_OBJECT_BATCH_SIZE,
            with_index=True,
        )

    def score_frames(
        self, model: Any, videos: Sequence[Video], **options: Any
    ) -> Iterator[ScoredFrame]:
        """Scores the frames of videos by the objects in them."""
        return score_objects(model, self.cut_out(videos))


# === The section [objects] ===


def proposals_of(objects: ObjectsConfig) -> ObjectProposals:
    """Returns what finds the objects."""
    if objects.boxes == "motion":
        return _motion_of(objects, objects.cover_threshold)
    is_model = objects.boxes.lower().endswith(".onnx")
    detections = (OnnxDetector if is_model else BoxFiles)(
        objects.boxes,
        min_confidence=objects.min_confidence,
        min_area=objects.min_area,
        cover_threshold=objects.cover_threshold,
    )
    if not objects.with_motion:
        return detections
    return MergedProposals(detections, _motion_of(objects))


def _motion_of(
    objects: ObjectsConfig, cover_threshold: float | None = None
) -> MotionProposals:
    return MotionProposals(
        threshold=objects.motion_threshold,
        blur=objects.motion_blur,
        min_area=objects.min_area,
        cover_threshold=cover_threshold,
        closing=objects.motion_closing,
        background_history=objects.background_history or None,
    )


def masks_of(objects: ObjectsConfig) -> FrameSource | None:
    """Returns what gives the masks of objects, or None."""
    if objects.masks == "motion":
        return MotionMasks(_motion_of(objects))
    return MaskFiles(objects.masks) if objects.masks else None


def flow_of(objects: ObjectsConfig) -> FrameSource:
    """Returns what gives the optical flow."""
    return DISFlow() if objects.flow == "dis" else FlowFiles(objects.flow)
