import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from keras_sspcab.data.video.clips import ClipIndex, ClipPlan

plans = st.builds(
    ClipPlan, st.integers(1, 5), st.integers(1, 3), st.integers(1, 4)
)


@hypothesis.given(st.lists(st.integers(1, 20), min_size=1, max_size=5), plans)
def test_the_index_numbers_all_clips_in_order(counts, plan):
    expected = [
        (video, list(range(start, start + plan.span, plan.stride)))
        for video, count in enumerate(counts)
        for start in range(0, count - plan.span + 1, plan.step)
    ]
    index = ClipIndex(counts, plan)
    assert len(index) == len(expected)
    videos, frames = index.locate(np.arange(len(index)))
    found = zip(videos.tolist(), frames.tolist(), strict=True)
    assert list(found) == expected


@pytest.mark.parametrize("name", ["clip_length", "stride", "step"])
def test_arguments_must_be_positive(name):
    with pytest.raises(ValueError, match=f"`{name}` argument.*at least 1"):
        ClipPlan(**{"length": 1, name.removeprefix("clip_"): 0})
