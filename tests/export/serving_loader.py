"""Runs a SavedModel from its graph alone, as TensorFlow Serving does."""

import tensorflow as tf


class ServedModel:
    """A SavedModel in a session, with its signatures.

    No object graph and no Keras class can help it.
    """

    def __init__(self, path):
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        with self._session.graph.as_default():
            graph = tf.compat.v1.saved_model.load(
                self._session, ["serve"], str(path)
            )
        self.signatures = dict(graph.signature_def)

    def run(self, signature, inputs):
        """Runs a signature on a dict of arrays (bytes for strings)."""
        definition = self.signatures[signature]
        assert set(definition.inputs) == set(inputs)
        return self._session.run(
            {name: info.name for name, info in definition.outputs.items()},
            {definition.inputs[k].name: v for k, v in inputs.items()},
        )

    def close(self):
        self._session.close()
