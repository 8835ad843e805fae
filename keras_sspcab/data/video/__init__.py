"""Videos: folders of frames or files, ground truth, and batches of clips.

Video files are read through PyAV, which is imported at the first use.
"""

from keras_sspcab.data.video.clips import clip_dataset, count_clips
from keras_sspcab.data.video.files import video_writer
from keras_sspcab.data.video.folder import (
    LabelSource,
    Video,
    VideoFolder,
    make_video,
)
from keras_sspcab.data.video.frames import fit_frame
from keras_sspcab.data.video.ground_truth import attach_labels, check_videos
from keras_sspcab.data.video.masks import (
    frame_labels,
    iterate_masks,
    tracks_from_masks,
)
from keras_sspcab.data.video.reading import (
    count_frames,
    frame_rate,
    iterate_frames,
    iterate_timed_frames,
    read_frames,
)
from keras_sspcab.data.video.scanning import scan_video_folder

__all__ = [
    "LabelSource",
    "Video",
    "VideoFolder",
    "attach_labels",
    "check_videos",
    "clip_dataset",
    "count_clips",
    "count_frames",
    "fit_frame",
    "frame_labels",
    "frame_rate",
    "iterate_frames",
    "iterate_masks",
    "iterate_timed_frames",
    "make_video",
    "read_frames",
    "scan_video_folder",
    "tracks_from_masks",
    "video_writer",
]
