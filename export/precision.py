"""What is computed in how many bits, and what stays in float32."""

import contextlib
import dataclasses
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import keras

from keras_sspcab.hosts import FeatureModel
from keras_sspcab.layers import (
    AttentionMemory,
    ChannelAttention,
    ChannelTransformer,
)

#: Precisions that an exported graph can compute in.
COMPUTE_PRECISIONS = ("float32", "float16", "bfloat16")

#: Precisions of files that are made for small devices.
FILE_PRECISIONS = ("float32", "float16", "int8")

#: Where a graph has what takes optional inputs.
OPTIONS_SCOPE = "optional_inputs"

# Others, of integers or quantized weights, say more than a precision.
_FLOAT_POLICIES = {*COMPUTE_PRECISIONS, "mixed_float16", "mixed_bfloat16"}

_BOUNDED = {"LOGISTIC", "TANH", "SOFTMAX"}
_CONVOLUTIONS = {"CONV_2D", "DEPTHWISE_CONV_2D"}
_VARIABLES = {"VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE"}

# Preprocessing, stem and first block of an EfficientNet-Lite.
_FIRST_CONVOLUTIONS = 4


# === 16 bits, in Keras ===


@contextlib.contextmanager
def computing_in(model: keras.Model, precision: str) -> Iterator[None]:
    """Lets the layers of a model compute in a precision for a while.

    Nothing happens to the weights. In float32 everything is computed so,
    whatever the model was trained under: 16-bit kernels are missing from LiteRT
    and slow on CPUs. In 16 bits inputs stay float32, and so do the layers of
    `keras_sspcab.scoring` and what lies between them and the last weights: a
    score is the small difference of two images, of which 16 bits leave little.
    """
    layers = [
        layer
        for layer in model._flatten_layers()
        if layer.dtype_policy.name in _FLOAT_POLICIES
    ]
    precise = _precise_layers(layers)
    changed = []
    try:
        for layer in layers:
            in_float32 = (
                precision == "float32"
                or id(layer) in precise
                # What a model does itself is to cast its inputs.
                or isinstance(layer, keras.Model)
            )
            policy = "float32" if in_float32 else f"mixed_{precision}"
            if layer.dtype_policy.name != policy:
                changed.append((layer, layer.dtype_policy))
                layer.dtype_policy = policy
        yield
    finally:
        for layer, before in changed:
            layer.dtype_policy = before


def _is_scoring(layer: keras.layers.Layer) -> bool:
    return type(layer).__module__.startswith("keras_sspcab.scoring")


def _precise_layers(layers: Iterable[keras.layers.Layer]) -> set[int]:
    """Ids of the scoring layers, and of the weightless ones before them."""
    waiting = [layer for layer in layers if _is_scoring(layer)]
    precise = {
        id(part) for layer in waiting for part in layer._flatten_layers()
    }
    while waiting:
        for node in waiting.pop()._inbound_nodes:
            for parent in node.parent_nodes:
                layer = parent.operation
                is_new = id(layer) not in precise
                if is_new and not getattr(layer, "weights", None):
                    precise.add(id(layer))
                    waiting.append(layer)
    return precise


# === Integers, in TFLite and OpenVINO ===


class Operation(NamedTuple):
    """One operation, called as in TFLite, and the indices of its tensors."""

    name: str
    is_custom: bool
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Graph:
    """The main graph of an artifact, in the order of execution."""

    operations: tuple[Operation, ...]
    tensor_names: tuple[str, ...]

    @classmethod
    def read(cls, content: bytes) -> "Graph":
        """Reads the graph from the content of a TFLite file."""
        from tensorflow.lite.python import schema_py_generated as schema

        kinds = {
            code: name
            for name, code in vars(schema.BuiltinOperator).items()
            if isinstance(code, int)
        }
        model = schema.ModelT.InitFromPackedBuf(content, 0)
        graph = model.subgraphs[0]
        operations = []
        for operator in graph.operators:
            code = model.operatorCodes[operator.opcodeIndex]
            # Codes above 127 do not fit into the older of the two fields.
            builtin = max(code.builtinCode, code.deprecatedBuiltinCode)
            is_custom = builtin == schema.BuiltinOperator.CUSTOM
            operations.append(
                Operation(
                    code.customCode.decode() if is_custom else kinds[builtin],
                    is_custom,
                    tuple(int(i) for i in operator.inputs),
                    tuple(int(o) for o in operator.outputs),
                )
            )
        names = tuple(tensor.name.decode() for tensor in graph.tensors)
        return cls(tuple(operations), names)

    @property
    def foreign_operations(self) -> set[str]:
        """Operations that a bare interpreter cannot run, and variables.

        Those of TensorFlow itself are called `Flex...`.
        """
        return {
            operation.name
            for operation in self.operations
            if operation.is_custom or operation.name in _VARIABLES
        }


@dataclasses.dataclass(frozen=True)
class FloatScopes:
    """The layers of a model that are not to be computed in integers.

    Scoring. A score is the small difference of two images: eight bits for the
    range of all errors leave nothing of the small ones that matter. The layers
    of `keras_sspcab.scoring`, all that follows them, optional inputs, and the
    sigmoid before them stay float; in integers, a sigmoid has steps of 1/256.

    The bottleneck of the channel attention. It is a handful of numbers, which
    may all be zero in all images. Integers for a range of zero have a scale
    that the kernels of LiteRT refuse. Likewise the channel transformer, with
    the softmax in it.

    What is read from memories with a threshold. The weights lie around one by
    the number of slots, which integers cannot tell from zero, and are then
    divided by their sum.

    The first convolutions of a pretrained network whose features are scored.
    How features differ from normal ones is seen in the directions in which
    these hardly vary, and what is rounded at the entry is spread over all of
    them. Later layers matter far less.
    """

    #: Names of layers from which on everything is float.
    scoring: tuple[str, ...] = ()
    #: Scopes that are float on their own.
    isolated: tuple[str, ...] = ()
    #: Up to which convolution, in the order of execution, everything is float.
    first_convolutions: int = 0

    @classmethod
    def of(cls, model: keras.Model) -> "FloatScopes":
        """Returns those of a model."""
        scoring, isolated = [OPTIONS_SCOPE], []
        for layer in model._flatten_layers():
            if _is_scoring(layer):
                scoring.append(layer.name)
            if isinstance(layer, ChannelAttention):
                for dense in (layer.squeeze, layer.excite):
                    isolated.append(f"{layer.name}/{dense.name}")
            if isinstance(layer, (AttentionMemory, ChannelTransformer)):
                isolated.append(layer.name)
        is_pretrained = isinstance(model, FeatureModel)
        return cls(
            tuple(scoring),
            tuple(isolated),
            _FIRST_CONVOLUTIONS if is_pretrained else 0,
        )

    def find(self, graph: Graph) -> tuple[list[str], list[str]]:
        """Returns names of tensors, and kinds of operations, that stay float.

        The converter does not know operations with several outputs, such as
        the selection of the largest values, by the names of these.
        """
        kept = self.kept(graph)
        kinds = {
            operation.name
            for operation in graph.operations
            if len(operation.outputs) > 1
            and kept.intersection(operation.outputs)
        }
        return [graph.tensor_names[t] for t in sorted(kept)], sorted(kinds)

    def kept(self, graph: Graph) -> set[int]:
        """Returns the indices of the tensors that stay float."""
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
        num_convolutions = 0
        for operation in graph.operations:
            if (
                num_convolutions < self.first_convolutions
                or _lies_in(self.isolated, graph, operation.outputs)
                or (
                    operation.name in _BOUNDED
                    and read.intersection(operation.outputs)
                )
            ):
                kept.update(operation.outputs)
            if operation.name in _CONVOLUTIONS:
                num_convolutions += 1
        return kept


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
