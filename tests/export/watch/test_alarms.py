import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_sspcab.export.watch import AlarmCounter

counts = st.integers(1, 4)


@given(st.lists(st.booleans(), max_size=60), counts, counts)
def test_alarms_begin_and_end_after_frames_in_a_row(verdicts, after, clear):
    counter = AlarmCounter(after, clear)
    changes = [counter.update(verdict) for verdict in verdicts]
    is_on, since = False, 0
    for index, change in enumerate(changes):
        needed = clear if is_on else after
        row = verdicts[max(since, index + 1 - needed) : index + 1]
        # Those of one row are not used twice.
        is_enough = len(row) == needed and set(row) == {not is_on}
        assert change == (("end" if is_on else "begin") if is_enough else None)
        if change:
            is_on, since = not is_on, index + 1
    assert counter.is_on == is_on


def test_a_reset_ends_the_alarm_and_the_row():
    counter = AlarmCounter(2, 1)
    counter.update(True)
    counter.reset()
    assert counter.update(True) is None
    assert counter.update(True) == "begin"
    counter.reset()
    assert not counter.is_on


@pytest.mark.parametrize("name", ["alarm_after", "clear_after"])
def test_less_than_one_frame_is_refused(name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        AlarmCounter(**{name: 0})
