"""The files below a root, looked at as videos."""

import collections
import os

from keras_sspcab.data.file_system import enumerate_names, join, list_files
from keras_sspcab.data.video.files import is_video
from keras_sspcab.data.video.folder import Video
from keras_sspcab.data.video.frames import is_image, list_frames, natural_key


class Tree:
    """What lies below a folder.

    Attributes:
        root: The folder.
        files: All files, relative to it, with forward slashes.
        images: How many images each folder holds, by relative path; that of
            the root is empty.
        videos: The video files.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.files = list_files(root)
        self.images = collections.Counter(
            file.rpartition("/")[0] for file in self.files if is_image(file)
        )
        self.videos = [file for file in self.files if is_video(file)]

    def path(self, relative: str) -> str:
        """Returns the full path."""
        return join(self.root, relative)

    def has(self, folder: str) -> bool:
        """Says whether there is a folder, be it empty."""
        return os.path.isdir(self.path(folder))

    def names(self, folder: str) -> list[str]:
        """Lists the files and folders in a folder that hold anything."""
        inside = f"{folder}/" if folder else ""
        return sorted(
            {
                file[len(inside) :].split("/", 1)[0]
                for file in self.files
                if file.startswith(inside)
            }
        )

    def list_videos(
        self, folder: str, without: tuple[str, ...] = ()
    ) -> tuple[Video, ...]:
        """Makes videos of all folders of frames and video files in a folder.

        Args:
            folder: Relative path; empty for the root. If it holds images
                itself, it is one video.
            without: Endings of names of folders that are no videos.

        Returns:
            Videos in natural order of their names, which are the paths within
            `folder` without extension.
        """
        inside = f"{folder}/" if folder else ""
        found: dict[str, list[Video]] = collections.defaultdict(list)
        for place, count in self.images.items():
            if not f"{place}/".startswith(inside) or place.endswith(without):
                continue
            name = place[len(inside) :] or os.path.basename(
                os.path.abspath(self.path(folder))
            )
            path = self.path(place)
            # Raises if frames are missing.
            list_frames(path)
            found[name].append(Video(name, path, "frames", count))
        for file in self.videos:
            if file.startswith(inside):
                name = os.path.splitext(file[len(inside) :])[0]
                found[name].append(Video(name, self.path(file), "file"))
        for name, videos in found.items():
            if len(videos) > 1:
                raise ValueError(
                    "Two videos have the same name. Received: "
                    f"{enumerate_names(v.path for v in videos)}. Keep one, or "
                    f"rename one of {name!r}."
                )
        return tuple(found[name][0] for name in sorted(found, key=natural_key))
