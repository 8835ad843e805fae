"""Whether a folder holds images or videos, as far as that can be told."""

import re

from keras_sspcab.data.file_system import is_folder, list_files, scheme_of
from keras_sspcab.data.scanning import IMAGE_EXTENSIONS
from keras_sspcab.data.video.files import VIDEO_EXTENSIONS

# Places of files in the layouts that are for one kind alone.
_IMAGES = re.compile(r"(train|validation|test)/good/[^/]+")
_VIDEOS = re.compile(
    r"(training|testing)/(frames|videos)/.+|(training|testing)_videos/.+|"
    r"(Train/Train|Test/Test)\d+/.+"
)


def find_kind(root: str) -> tuple[str, str]:
    """Returns what a folder holds, and a file that says so.

    That is "images", "videos", "folders of images", which may be frames of
    videos, or nothing where it may be either. Remote folders, which take long
    to list, are not looked at.
    """
    if scheme_of(root) or not is_folder(root):
        return "", ""
    files = list_files(root)
    images = [f for f in files if f.lower().endswith(IMAGE_EXTENSIONS)]
    videos = [f for f in files if f.lower().endswith(VIDEO_EXTENSIONS)]
    if images:
        videos = [f for f in videos if f.startswith("train/")]
    videos += filter(_VIDEOS.fullmatch, images)
    parts = [f for f in images if re.fullmatch(r"train/[^/]+/.+", f)]
    for kind, found in (
        ("images", [*filter(_IMAGES.fullmatch, images)]),
        ("videos", videos),
        ("folders of images", parts),
    ):
        if found:
            return kind, found[0]
    return "", ""
