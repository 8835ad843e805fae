"""Reads the operations of a TFLite file."""

import dataclasses
import functools
from typing import Any


@dataclasses.dataclass(frozen=True)
class Operation:
    """One operation: its name and the indices of its tensors."""

    name: str
    is_custom: bool
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Graph:
    """The main graph of a TFLite file, in the order of execution."""

    operations: tuple[Operation, ...]
    tensor_names: tuple[str, ...]

    @property
    def foreign_operations(self) -> set[str]:
        """Operations that a bare interpreter cannot run, and variables.

        Those of TensorFlow itself are called `Flex...`.
        """
        variables = {"VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE"}
        return {
            operation.name
            for operation in self.operations
            if operation.is_custom or operation.name in variables
        }


def read_graph(content: bytes) -> Graph:
    """Reads the main graph from the content of a TFLite file."""
    from tensorflow.lite.python import schema_py_generated as schema

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
                name=(
                    code.customCode.decode()
                    if is_custom
                    else _builtin_names()[builtin]
                ),
                is_custom=is_custom,
                inputs=tuple(int(i) for i in operator.inputs),
                outputs=tuple(int(o) for o in operator.outputs),
            )
        )
    names = tuple(tensor.name.decode() for tensor in graph.tensors)
    return Graph(tuple(operations), names)


@functools.cache
def _builtin_names() -> dict[Any, str]:
    from tensorflow.lite.python import schema_py_generated as schema

    return {
        code: name
        for name, code in vars(schema.BuiltinOperator).items()
        if isinstance(code, int)
    }
