"""What a run has learnt, to look at: a page, and an overlay."""

from keras_sspcab.pictures.heat import overlay
from keras_sspcab.report.page import write_report

__all__ = ["overlay", "write_report"]
