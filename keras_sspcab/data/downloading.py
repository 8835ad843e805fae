"""Fetches data sets from their publishers, ready to be trained on."""

import csv
import dataclasses
import functools
import importlib.resources
import os
import pathlib
import shutil
import urllib.parse
from collections.abc import Callable, Sequence

from keras_sspcab import files
from keras_sspcab.checks import standardize_choice
from keras_sspcab.data.archives import read_member, unpack
from keras_sspcab.data.fetching import fetch
from keras_sspcab.data.file_system import enumerate_names
from keras_sspcab.locks import folder_lock
from keras_sspcab.progress import Progress
from keras_sspcab.toml import tomllib


@dataclasses.dataclass(frozen=True)
class Archive:
    """A file to download, and the folders in it that are wanted."""

    url: str
    sha256: str
    folders: Sequence[str]
    split: str = ""

    @property
    def file_name(self) -> str:
        """File name of the archive: the last part of its address."""
        return urllib.parse.urlsplit(self.url).path.rpartition("/")[2]


@dataclasses.dataclass(frozen=True)
class DownloadableData:
    """An entry of `downloads.toml`."""

    name: str
    title: str
    license: str
    license_url: str
    page: str
    citation: str
    archives: tuple[Archive, ...]
    has_categories: bool = False
    model: str | None = None

    def folders(self, category: str | None) -> list[str]:
        """Returns the folders of a category, or all."""
        known = [f for archive in self.archives for f in archive.folders]
        if category is None:
            return known
        if not self.has_categories:
            raise ValueError(
                f"{self.title} has no categories. Received: category="
                f"{category!r}. Leave it out"
            )
        lowered = {folder.lower(): folder for folder in known}
        category = category.lower()
        return [lowered[standardize_choice(category, [*lowered], "category")]]

    def describe_license(self) -> str:
        """Says under which terms the data are, and whose they are."""
        return (
            f"{self.title} ({self.citation}), from {self.page}\n"
            f"License: {self.license} ({self.license_url})"
        )


@functools.cache
def downloadable_data() -> dict[str, DownloadableData]:
    """Returns the data sets that can be downloaded, by name."""
    folder = importlib.resources.files("keras_sspcab.data")
    entries = tomllib.loads((folder / "downloads.toml").read_text("utf-8"))
    for entry in entries.values():
        entry["archives"] = tuple(Archive(**a) for a in entry["archives"])
    return {n: DownloadableData(n, **entry) for n, entry in entries.items()}


def find_download(name: str) -> DownloadableData:
    """Returns a data set by its name."""
    known = downloadable_data()
    return known[standardize_choice(name, tuple(known), "name")]


def download(
    name: str,
    out: "str | os.PathLike[str] | None" = None,
    *,
    category: str | None = None,
    accept_license: bool = False,
    url: str | None = None,
    sha256: str | None = None,
    keep_archives: bool = False,
    progress: Progress | None = None,
) -> pathlib.Path:
    """Returns the folder of a data set, after fetching what is missing of it.

    It is as `scan_image_folder` or `scan_video_folder` take it. Stopped at any
    moment, the same call continues. Each archive is checked before it is
    unpacked: the publishers give no checksums, so these are those that anomalib
    lists. An archive that lies in the folder already is not downloaded, and
    stays.

    Args:
        name: `"mvtec-ad"`, `"visa"`, `"ucsd-ped"` or `"avenue"`.
        out: Folder of the data set. Defaults to its name, in the working
            folder.
        category: Of MVTec AD and VisA, the only object to unpack; of UCSD,
            `"UCSDped1"` or `"UCSDped2"`. None (the default) unpacks all.
        accept_license: Whether you accept the license of the data.
        url: Another address of the archive or, where there are several, of the
            folder that they are in.
        sha256: Checksum of the archive there, if it is another one.
        keep_archives: Whether archives stay after they were unpacked.
        progress: Takes what there is to say.

    Returns:
        The folder of the category, if there is one, or of the data set.

    Raises:
        ValueError: If the license is not accepted, an argument is wrong, a
            server does not answer, or an archive is not what it should be.
        OutOfSpaceError: If the disk has too little room.

    Example:
    >>> download("visa", category="candle")
    Traceback (most recent call last):
    ...
    ValueError: VisA (Zou et al., ECCV 2022), from https://github.com/...
    License: CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/)
    Accept it with the `accept_license` argument
    """
    data = find_download(name)
    wanted = data.folders(category)
    archives = _replace_source(data, url, sha256)
    if not accept_license:
        raise ValueError(
            f"{data.describe_license()}\n"
            "Accept it with the `accept_license` argument"
        )
    folder = pathlib.Path(out or data.name).expanduser()
    with folder_lock(folder, is_deep=False):
        for archive in archives:
            missing = [f for f in archive.folders if f in wanted]
            missing = [f for f in missing if not (folder / f).exists()]
            if missing:
                path = folder / archive.file_name
                is_fetched = not path.exists()
                _add(data, archive, missing, folder, progress or Progress())
                if is_fetched and not keep_archives:
                    path.unlink()
    return folder / wanted[0] if category else folder


def _replace_source(
    data: DownloadableData, url: str | None, sha256: str | None
) -> list[Archive]:
    archives = list(data.archives)
    if len(archives) > 1 and sha256 is not None:
        raise ValueError(
            f"{data.title} has {len(archives)} archives, whose checksums are "
            "known. Leave out the `sha256` argument"
        )
    for number, archive in enumerate(archives):
        address = archive.url if url is None else url
        if url is not None and len(archives) > 1:
            address = f"{url.rstrip('/')}/{archive.file_name}"
        archives[number] = dataclasses.replace(
            archive, url=address, sha256=(sha256 or archive.sha256).lower()
        )
        if not archives[number].file_name:
            raise ValueError(
                "The `url` argument must be the address of the archive itself. "
                f"Received: url={url!r}"
            )
    return archives


def _add(
    data: DownloadableData,
    archive: Archive,
    missing: Sequence[str],
    folder: pathlib.Path,
    progress: Progress,
) -> None:
    """Adds folders to a data set, each of them whole."""
    path = folder / archive.file_name
    if not path.exists():
        part = f"{path}.part"
        try:
            fetch(archive.url, part, progress)
        except ValueError as error:
            raise ValueError(
                f"{error}. The publisher's page is {data.page}; the `url` "
                f"argument takes another address, and an archive {path} that "
                "you put there is not downloaded"
            ) from error
        _check(archive, part, is_new=True)
        os.replace(part, path)
    else:
        _check(archive, str(path), is_new=False)
    progress.message(f"The checksum of {path} is right. Unpacking it ...")
    unpacked = files.temporary_path(folder / "unpacked")
    os.makedirs(unpacked)
    try:
        with files.telling_full_disks(str(folder / missing[0])):
            names = unpack(str(path), unpacked, _places(archive, path, missing))
            found = os.listdir(unpacked)
            if lost := [name for name in missing if name not in found]:
                raise ValueError(
                    f"The archive {path} holds no {enumerate_names(lost)}, "
                    f"but {enumerate_names(names, 3)}"
                )
            for name in missing:
                os.rename(os.path.join(unpacked, name), folder / name)
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)


def _check(archive: Archive, path: str, is_new: bool) -> None:
    found = files.sha256_of(path)
    if found == archive.sha256:
        return
    advice = "Remove it to download it again"
    if is_new:
        os.unlink(path)
        advice = "It was removed: give the command again"
    raise ValueError(
        f"{path} is not the archive that is expected: its SHA-256 is {found}, "
        f"not {archive.sha256}. {advice}, or, if you trust it because its "
        "publisher has changed it, pass what it is as the `sha256` argument"
    )


def _places(
    archive: Archive, path: pathlib.Path, folders: Sequence[str]
) -> Callable[[str], str | None]:
    """Returns what gives a file its place; see `unpack`."""
    if archive.split:
        return _read_split(archive, path, folders).get

    def place(name: str) -> str | None:
        parts = name.split("/")
        if parts[0] not in archive.folders:
            # There may be a folder around all.
            del parts[0]
        is_hidden = any(part.startswith(".") for part in parts)
        if is_hidden or len(parts) < 2 or parts[0] not in folders:
            return None
        return "/".join(parts)

    return place


def _read_split(
    archive: Archive, path: pathlib.Path, folders: Sequence[str]
) -> dict[str, str]:
    """Returns places in the MVTec AD layout by the table of a split."""
    name, table = read_member(str(path), archive.split)
    rows = list(csv.reader(table.decode().splitlines()))
    above = name.removesuffix(archive.split)
    places = {}
    for category, split, label, image, mask in rows[1:]:
        if category not in folders:
            continue
        kind = "good" if label == "normal" else "bad"
        base = image.rpartition("/")[2]
        places[above + image] = f"{category}/{split}/{kind}/{base}"
        if kind == "bad" and split == "test" and mask:
            base = mask.rpartition("/")[2]
            places[above + mask] = f"{category}/ground_truth/bad/{base}"
    return places
