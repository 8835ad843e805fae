"""Pairs masks with the images they belong to, in the MVTec AD layout."""

import collections

from keras_sspcab.data.file_system import enumerate_names


def pair_masks(
    root: str, images: list[str], masks: list[str]
) -> dict[str, str]:
    """Returns the mask of each image that has one, by stem.

    Images lie in `test` and masks in `ground_truth`, below `root`; all are
    relative paths. A folder with several masks of one image stands for these.

    Raises:
        ValueError: If masks have no image, or images no single mask.
    """

    def stem_of(file: str) -> str:
        """`test/crack/007.png` -> `crack/007`."""
        return file.split("/", 1)[1].rsplit(".", 1)[0]

    by_stem: dict[str, list[str]] = collections.defaultdict(list)
    for image in images:
        by_stem[stem_of(image)].append(image)

    def images_of(stem: str) -> list[str]:
        return by_stem.get(stem.removesuffix("_mask"), by_stem.get(stem, []))

    pairs: dict[str, str] = {}
    merged = set()
    unmatched = []
    for mask in masks:
        matches = images_of(stem_of(mask))
        folder = mask.rpartition("/")[0]
        if not matches and (matches := images_of(folder.partition("/")[2])):
            mask = folder
            merged.add(folder)
        if not matches:
            unmatched.append(mask)
        elif len(matches) > 1:
            raise ValueError(
                f"The mask {mask!r} belongs to several images. Received: "
                f"root={root!r} with {enumerate_names(matches)}. Give them "
                "different names."
            )
        elif pairs.get(matches[0], mask) != mask:
            raise ValueError(
                f"The image {matches[0]!r} has several masks. Received: "
                f"root={root!r} with {pairs[matches[0]]} and {mask}. Keep one."
            )
        else:
            pairs[matches[0]] = mask
    if unmatched:
        raise ValueError(
            f"{len(unmatched)} masks have no image. Received: root={root!r} "
            f"with {enumerate_names(unmatched, limit=50)}. The mask of "
            "test/DEFECT/NAME.png is ground_truth/DEFECT/NAME_mask.png, or all "
            "in ground_truth/DEFECT/NAME/. Rename them, or remove those that "
            "are not needed."
        )
    for mask in pairs.values():
        if mask.rpartition("/")[0] in merged:
            raise ValueError(
                f"The masks in {mask.rpartition('/')[0]!r} belong to one image "
                f"as a whole, and {mask!r} to another. Received: "
                f"root={root!r}. Give the images different names."
            )
    return pairs
