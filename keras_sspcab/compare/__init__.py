"""Comparing hosts with and without the block, over seeds and data classes.

The trainings themselves are those of the command line, `keras-sspcab compare`;
here are the grid of them, their settings, statistics, tables and the figure.
"""
