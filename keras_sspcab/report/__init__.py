"""What a run has learnt, to look at: a page, an overlay, a picture."""

from keras_sspcab.report.examples import save_examples_figure
from keras_sspcab.report.heat import overlay
from keras_sspcab.report.page import write_report

__all__ = ["overlay", "save_examples_figure", "write_report"]
