"""Measurements, each a module to run, such as `python -m benchmarks.layer`.

They use the CPU, unless CUDA_VISIBLE_DEVICES names a GPU.
"""

import os

# TensorFlow reads them when it is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
