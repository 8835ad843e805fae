"""What stays float when a model is converted to integers."""

import dataclasses
import re

import keras

from keras_sspcab.export.flatbuffer import Graph
from keras_sspcab.layers import AttentionMemory, ChannelAttention

_BOUNDED = {"LOGISTIC", "TANH", "SOFTMAX"}


@dataclasses.dataclass(frozen=True)
class FloatScopes:
    """The layers of a model that are not to be computed in integers.

    Scoring. A score is the small difference of two images: eight bits for the
    range of all errors leave nothing of the small ones that matter. The layers
    of `keras_sspcab.scoring`, all that follows them, and the sigmoid before
    them stay float; in integers, a sigmoid has steps of 1/256.

    The bottleneck of the channel attention. It is a handful of numbers, which
    may all be zero in all images. Integers for a range of zero have a scale
    that the kernels of LiteRT refuse.

    What is read from memories with a threshold. The weights lie around one by
    the number of slots, which integers cannot tell from zero, and are then
    divided by their sum.

    Attributes:
        scoring: Names of layers from which on everything is float.
        isolated: Scopes that are float on their own.
    """

    scoring: tuple[str, ...]
    isolated: tuple[str, ...]

    @classmethod
    def of(cls, model: keras.Model) -> "FloatScopes":
        """Finds them in a model."""
        layers = model._flatten_layers()
        scoring = []
        isolated = []
        for layer in layers:
            if type(layer).__module__.startswith("keras_sspcab.scoring"):
                scoring.append(layer.name)
            if isinstance(layer, ChannelAttention):
                for dense in (layer.squeeze, layer.excite):
                    isolated.append(f"{layer.name}/{dense.name}")
            if isinstance(layer, AttentionMemory):
                isolated.append(layer.name)
        return cls(tuple(scoring), tuple(isolated))

    def tensors(self, graph: Graph) -> list[str]:
        """Returns the names of all tensors of a graph that stay float."""
        scored: set[int] = set()
        for operation in graph.operations:  # in the order of execution
            if scored.intersection(operation.inputs) or _lies_in(
                self.scoring, graph, operation.outputs
            ):
                scored.update(operation.outputs)
        read = {
            tensor
            for operation in graph.operations
            if scored.intersection(operation.outputs)
            for tensor in operation.inputs
        }
        kept = set(scored)
        for operation in graph.operations:
            if _lies_in(self.isolated, graph, operation.outputs) or (
                operation.name in _BOUNDED
                and read.intersection(operation.outputs)
            ):
                kept.update(operation.outputs)
        return [graph.tensor_names[tensor] for tensor in sorted(kept)]


def _lies_in(
    scopes: tuple[str, ...], graph: Graph, tensors: tuple[int, ...]
) -> bool:
    """Whether one of the tensors comes from one of the scopes.

    Names of tensors are paths of layers, several of them where operations have
    been fused. TensorFlow numbers the layers when it traces them again.
    """
    for scope in scopes:
        path = "/".join(
            rf"{re.escape(part)}(_\d+)?" for part in scope.split("/")
        )
        pattern = re.compile(rf"(^|[/;]){path}/")
        if any(pattern.search(graph.tensor_names[t]) for t in tensors):
            return True
    return False
