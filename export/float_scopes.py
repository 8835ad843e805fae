"""What stays float when a model is converted to integers."""

import dataclasses
import re

import keras

from keras_sspcab.export.flatbuffer import Graph
from keras_sspcab.hosts.feature_model import FeatureModel
from keras_sspcab.layers import AttentionMemory, ChannelAttention

_BOUNDED = {"LOGISTIC", "TANH", "SOFTMAX"}

_CONVOLUTIONS = {"CONV_2D", "DEPTHWISE_CONV_2D"}

# Preprocessing, stem and first block of an EfficientNet-Lite.
_FIRST_CONVOLUTIONS = 4


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

    The first convolutions of a pretrained network whose features are scored.
    How features differ from normal ones is seen in the directions in which
    these hardly vary, and what is rounded at the entry is spread over all of
    them. Later layers matter far less.

    Attributes:
        scoring: Names of layers from which on everything is float.
        isolated: Scopes that are float on their own.
        first_convolutions: Up to which convolution, in the order of execution,
            everything is float.
    """

    scoring: tuple[str, ...]
    isolated: tuple[str, ...]
    first_convolutions: int = 0

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
        is_pretrained = isinstance(model, FeatureModel)
        return cls(
            tuple(scoring),
            tuple(isolated),
            _FIRST_CONVOLUTIONS if is_pretrained else 0,
        )

    def tensors(self, graph: Graph) -> list[str]:
        """Returns the names of all tensors of a graph that stay float."""
        return [graph.tensor_names[tensor] for tensor in self._kept(graph)]

    def operations(self, graph: Graph) -> list[str]:
        """Returns the kinds of operations that stay float wherever they are.

        The converter does not know operations with several outputs, such as
        the selection of the largest values, by the names of these.
        """
        kept = set(self._kept(graph))
        kinds = {
            operation.name
            for operation in graph.operations
            if len(operation.outputs) > 1
            and kept.intersection(operation.outputs)
        }
        return sorted(kinds)

    def _kept(self, graph: Graph) -> list[int]:
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
        kept.update(self._entry(graph))
        return sorted(kept)

    def _entry(self, graph: Graph) -> set[int]:
        """Returns what is computed up to the last of the first convolutions."""
        tensors: set[int] = set()
        count = 0
        for operation in graph.operations:
            if count == self.first_convolutions:
                break
            count += operation.name in _CONVOLUTIONS
            tensors.update(operation.outputs)
        return tensors


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
