"""Live cameras: frames are scored as they come, and alarms are kept.

It stands beside the server, whose defenses its page shares, and runs exports
as well as models: both are of this part of the package, not of the library.
"""

from keras_sspcab.export.watch.alarms import AlarmCounter
from keras_sspcab.export.watch.scoring import FrameScorer, load_frame_scorer
from keras_sspcab.export.watch.watching import Watch, WatchOptions

__all__ = [
    "AlarmCounter",
    "FrameScorer",
    "Watch",
    "WatchOptions",
    "load_frame_scorer",
]
