"""Runs a SavedModel by TensorFlow's C API, as TensorFlow Serving does.

`TF_LoadSessionFromSavedModel` is the C++ loader that TensorFlow Serving builds
on. No Python function, object graph or Keras class can help it.
"""

import ctypes
import pathlib

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

_STRING_SIZE = 24  # sizeof(TF_TString)


def _load_library():
    folder = pathlib.Path(tf.sysconfig.get_lib())
    library = ctypes.CDLL(str(folder / "libtensorflow_cc.so.2"))
    for name in (
        "TF_NewStatus",
        "TF_NewGraph",
        "TF_NewSessionOptions",
        "TF_NewBuffer",
        "TF_LoadSessionFromSavedModel",
        "TF_GraphOperationByName",
        "TF_AllocateTensor",
        "TF_TensorData",
    ):
        getattr(library, name).restype = ctypes.c_void_p
    library.TF_Message.restype = ctypes.c_char_p
    library.TF_TensorByteSize.restype = ctypes.c_size_t
    library.TF_Dim.restype = ctypes.c_int64
    return library


class _Buffer(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("length", ctypes.c_size_t),
        ("deallocator", ctypes.c_void_p),
    ]


class _Output(ctypes.Structure):
    _fields_ = [("operation", ctypes.c_void_p), ("index", ctypes.c_int)]


class ServedModel:
    """A SavedModel in a session of the C API, with its signatures."""

    def __init__(self, path):
        self._c = _load_library()
        self._status = ctypes.c_void_p(self._c.TF_NewStatus())
        self._graph = ctypes.c_void_p(self._c.TF_NewGraph())
        options = ctypes.c_void_p(self._c.TF_NewSessionOptions())
        buffer = ctypes.c_void_p(self._c.TF_NewBuffer())
        tags = (ctypes.c_char_p * 1)(b"serve")
        self._session = ctypes.c_void_p(
            self._c.TF_LoadSessionFromSavedModel(
                options,
                None,
                str(path).encode(),
                tags,
                1,
                self._graph,
                buffer,
                self._status,
            )
        )
        self._check()
        view = ctypes.cast(buffer, ctypes.POINTER(_Buffer)).contents
        meta_graph = meta_graph_pb2.MetaGraphDef.FromString(
            ctypes.string_at(view.data, view.length)
        )
        self.signatures = dict(meta_graph.signature_def)
        self._c.TF_DeleteBuffer(buffer)
        self._c.TF_DeleteSessionOptions(options)

    def run(self, signature, inputs):
        """Runs a signature on a dict of arrays (bytes for strings)."""
        definition = self.signatures[signature]
        assert set(definition.inputs) == set(inputs)
        names = sorted(definition.outputs)
        input_tensors = (ctypes.c_void_p * len(inputs))(
            *(self._to_tensor(value) for value in inputs.values())
        )
        output_tensors = (ctypes.c_void_p * len(names))()
        self._c.TF_SessionRun(
            self._session,
            None,
            self._ends(definition.inputs, inputs),
            input_tensors,
            len(inputs),
            self._ends(definition.outputs, names),
            output_tensors,
            len(names),
            None,
            0,
            None,
            self._status,
        )
        for tensor in input_tensors:
            self._c.TF_DeleteTensor(ctypes.c_void_p(tensor))
        self._check()
        return {
            name: self._to_array(tensor)
            for name, tensor in zip(names, output_tensors, strict=True)
        }

    def close(self):
        self._c.TF_CloseSession(self._session, self._status)
        self._c.TF_DeleteSession(self._session, self._status)
        self._c.TF_DeleteGraph(self._graph)
        self._c.TF_DeleteStatus(self._status)

    def _ends(self, tensors, names):
        ends = []
        for name in names:
            operation, index = tensors[name].name.split(":")
            found = self._c.TF_GraphOperationByName(
                self._graph, operation.encode()
            )
            assert found, operation
            ends.append(_Output(found, int(index)))
        return (_Output * len(ends))(*ends)

    def _to_tensor(self, value):
        value = np.asarray(value)
        is_text = value.dtype.kind in "SO"
        dtype = tf.string if is_text else tf.as_dtype(value.dtype)
        size = _STRING_SIZE * value.size if is_text else value.nbytes
        tensor = self._c.TF_AllocateTensor(
            dtype.as_datatype_enum,
            (ctypes.c_int64 * value.ndim)(*value.shape),
            value.ndim,
            ctypes.c_size_t(size),
        )
        data = self._c.TF_TensorData(ctypes.c_void_p(tensor))
        if is_text:
            for index, text in enumerate(value.ravel()):
                string = ctypes.c_void_p(data + index * _STRING_SIZE)
                self._c.TF_StringInit(string)
                self._c.TF_StringCopy(
                    string, bytes(text), ctypes.c_size_t(len(text))
                )
        else:
            ctypes.memmove(data, np.ascontiguousarray(value).ctypes.data, size)
        return tensor

    def _to_array(self, tensor):
        tensor = ctypes.c_void_p(tensor)
        shape = [
            self._c.TF_Dim(tensor, axis)
            for axis in range(self._c.TF_NumDims(tensor))
        ]
        dtype = tf.as_dtype(self._c.TF_TensorType(tensor)).as_numpy_dtype
        content = ctypes.string_at(
            self._c.TF_TensorData(tensor), self._c.TF_TensorByteSize(tensor)
        )
        self._c.TF_DeleteTensor(tensor)
        return np.frombuffer(content, dtype).reshape(shape)

    def _check(self):
        if self._c.TF_GetCode(self._status):
            raise RuntimeError(self._c.TF_Message(self._status).decode())
