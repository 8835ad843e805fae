"""Looks for what does not belong into a graph that is served."""

import pathlib
import re
from collections.abc import Iterable
from typing import Any

# Python code: it does not travel with the file.
_PYTHON = {"PyFunc", "PyFuncStateless", "EagerPyFunc", "NumpyFunction"}

# A transposed convolution is computed as the gradient of one; the other
# gradients that training takes have names of their own.
_TRAINING = re.compile(
    r"(?!Conv[23]DBackpropInput(V2)?$)"
    r"(.*Grad(V\d+)?|.*Backprop(Input|Filter)?(V\d+)?"
    r"|(Resource)?(Sparse)?Apply.+|.*Dropout.*)"
)

_VARIABLES = re.compile(
    r"(VarHandleOp|ReadVariableOp|Assign.*|VariableV?\d?|Resource(Scatter|"
    r"Gather).*)"
)

# Left over by TensorFlow's own loops and conditions; computes nothing.
_PLUMBING = re.compile(r"Const|Pack|Identity|Shape|TensorListReserve")

_RANDOM = re.compile(r"(Stateless)?Random.*|StatelessMultinomial|Multinomial")


def audit_saved_model(path: Any) -> list[str]:
    """Walks all functions of a SavedModel and reports what is wrong.

    Wrong are: Python functions, gradients, optimizers and dropout, variables,
    random numbers, and operations that no output depends on (a loss, say, that
    was traced along). The functions that store and restore variables, which
    TensorFlow writes into every SavedModel, are left out.

    Args:
        path: Folder of the SavedModel.

    Returns:
        A line for each problem; empty where all is well.

    Example:
    >>> audit_saved_model("models/screws/1")  # doctest: +SKIP
    []
    """
    from tensorflow.core.protobuf import saved_model_pb2

    proto = saved_model_pb2.SavedModel()
    proto.ParseFromString((pathlib.Path(path) / "saved_model.pb").read_bytes())
    problems = []
    for meta_graph in proto.meta_graphs:
        graph = meta_graph.graph_def
        for function in graph.library.function:
            name = function.signature.name
            if re.match(r"__inference__traced_(save|restore)_\d+$", name):
                continue
            problems += _check_nodes(name, function.node_def)
            problems += _dead_nodes(function)
        saver = meta_graph.saver_def
        savers = {saver.save_tensor_name, saver.restore_op_name}
        keep = {name.split(":")[0] for name in savers}
        problems += _check_nodes(
            "the graph",
            [node for node in graph.node if node.name not in keep],
        )
    return problems


def _check_nodes(where: str, nodes: Iterable[Any]) -> list[str]:
    problems = []
    for node in nodes:
        kind = _kind(node.op)
        if kind:
            problems.append(f"{kind} {node.op} ({node.name}) in {where}")
    return problems


def _kind(operation: str) -> str | None:
    if operation in _PYTHON:
        return "Python function"
    if _TRAINING.fullmatch(operation):
        return "training operation"
    if _VARIABLES.fullmatch(operation):
        return "variable"
    if _RANDOM.fullmatch(operation):
        return "random operation"
    return None


def _dead_nodes(function: Any) -> list[str]:
    """Reports operations that nothing which leaves the function depends on."""
    nodes = {node.name: node for node in function.node_def}
    waiting = [
        *(_producer(source) for source in function.ret.values()),
        *(_producer(source) for source in function.control_ret.values()),
    ]
    alive: set[str] = set()
    while waiting:
        name = waiting.pop()
        # What is no node is an argument.
        if name in nodes and name not in alive:
            alive.add(name)
            waiting += [_producer(source) for source in nodes[name].input]
    return [
        f"unused operation {node.op} ({name}) in {function.signature.name}"
        for name, node in nodes.items()
        if name not in alive and not _PLUMBING.fullmatch(node.op)
    ]


def _producer(source: str) -> str:
    """Name of the node in `name:output:0` or `^name`."""
    return source.removeprefix("^").split(":")[0]
