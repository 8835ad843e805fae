"""Looks for what does not belong into a graph that is served."""

import itertools
import pathlib
import re
from collections.abc import Iterable
from typing import Any

import numpy as np

# What must not be in it, by kind: patterns of names of operations.
_UNWANTED = {
    # It does not travel with the file.
    "Python function": "(Eager)?PyFunc(Stateless)?|NumpyFunction",
    # A transposed convolution is computed as the gradient of one; the other
    # gradients that training takes have names of their own.
    "training operation": r"(?!Conv[23]DBackpropInput(V2)?$)"
    r"(.*Grad(V\d+)?|.*Backprop(Input|Filter)?(V\d+)?"
    r"|(Resource)?(Sparse)?Apply.+|.*Dropout.*)",
    "variable": r"VarHandleOp|ReadVariableOp|Assign.*|VariableV?\d?"
    r"|Resource(Scatter|Gather).*",
    "random operation": r"(Stateless)?(Random.*|Multinomial)",
}

# Left over by TensorFlow's own loops and conditions; computes nothing, or a
# size of a tensor.
_PLUMBING = re.compile(
    r"Const|Pack|Identity|Shape|StridedSlice|TensorListReserve"
)

# TensorFlow writes them into every SavedModel.
_SAVERS = re.compile(r"__inference__traced_(save|restore)_\d+")


def audit_saved_model(path: Any) -> list[str]:
    """Returns a line for each problem in the functions of a SavedModel.

    Problems are what `_UNWANTED` lists, and operations that no output depends
    on: a loss, say, that was traced along.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    proto = saved_model_pb2.SavedModel()
    proto.ParseFromString((pathlib.Path(path) / "saved_model.pb").read_bytes())
    problems = []
    for meta_graph in proto.meta_graphs:
        graph = meta_graph.graph_def
        for function in graph.library.function:
            name = function.signature.name
            if not _SAVERS.fullmatch(name):
                problems += _unwanted_nodes(name, function.node_def)
                problems += _unused_nodes(function)
        saver = meta_graph.saver_def
        savers = {
            name.split(":")[0]
            for name in (saver.save_tensor_name, saver.restore_op_name)
        }
        nodes = [node for node in graph.node if node.name not in savers]
        problems += _unwanted_nodes("the graph", nodes)
    return problems


def require_finite_constants(graph: Any) -> None:
    """Raises a ValueError if weights in a `GraphDef` are not finite.

    Scores can look plausible even then: some kernels take NaN for zero.
    """
    import tensorflow as tf

    nodes = itertools.chain(
        graph.node, *(f.node_def for f in graph.library.function)
    )
    for node in nodes:
        if node.op != "Const":
            continue
        tensor = node.attr["value"].tensor
        # A single infinity may be meant, as a threshold that nothing reaches.
        if tensor.tensor_shape.dim and tf.as_dtype(tensor.dtype).is_floating:
            require_finite(node.name, tf.make_ndarray(tensor))


def require_finite(name: str, values: np.ndarray) -> None:
    """Raises a ValueError if weights are not finite."""
    if not np.isfinite(np.asarray(values, "float64")).all():
        raise ValueError(
            f"The weights {name!r} are not finite: the model is damaged, or "
            "its training has diverged. Train it again."
        )


def _unwanted_nodes(where: str, nodes: Iterable[Any]) -> list[str]:
    return [
        f"{kind} {node.op} ({node.name}) in {where}"
        for node in nodes
        for kind, pattern in _UNWANTED.items()
        if re.fullmatch(pattern, node.op)
    ]


def _unused_nodes(function: Any) -> list[str]:
    """Reports operations that nothing which leaves the function depends on."""
    nodes = {node.name: node for node in function.node_def}
    results = [*function.ret.values(), *function.control_ret.values()]
    waiting = [_producer(source) for source in results]
    used: set[str] = set()
    while waiting:
        name = waiting.pop()
        # What is no node is an argument.
        if name in nodes and name not in used:
            used.add(name)
            waiting += [_producer(source) for source in nodes[name].input]
    return [
        f"unused operation {node.op} ({name}) in {function.signature.name}"
        for name, node in nodes.items()
        if name not in used and not _PLUMBING.fullmatch(node.op)
    ]


def _producer(source: str) -> str:
    """Name of the node in `name:output:0` or `^name`."""
    return source.removeprefix("^").split(":")[0]
