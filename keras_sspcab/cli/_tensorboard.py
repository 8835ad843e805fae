"""Logs for TensorBoard that survive a kill."""

from typing import Any

import keras


class FlushedTensorBoard(keras.callbacks.TensorBoard):
    """Keras' callback, with each epoch on disk before its checkpoint."""

    def __init__(self, log_dir: str) -> None:
        super().__init__(log_dir, write_graph=False)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_end(epoch, logs)
        for writer in self._writers.values():
            writer.flush()
