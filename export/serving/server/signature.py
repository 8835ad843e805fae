"""The functions of a SavedModel, and whether requests fit them."""

import dataclasses
import functools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from grpc import StatusCode

from keras_sspcab.checks import FAR_TOO_HIGH
from keras_sspcab.export.serving.server.errors import (
    ServingError,
    invalid,
    too_large,
)
from keras_sspcab.optional_inputs import left_out, product_index

Arrays = dict[str, np.ndarray]

# Bytes that an output takes while it is computed, joined and written.
_BYTES_OF_OUTPUT = 20


@dataclasses.dataclass(frozen=True)
class Signature:
    """A function of a SavedModel, with specs of its inputs and outputs by name.

    If XLA compiles it for each batch size, batches are padded to powers of two.
    Requests may leave out the `optional` inputs.
    """

    name: str
    inputs: Mapping[str, tf.TensorSpec]
    outputs: Mapping[str, tf.TensorSpec]
    function: Callable[..., Mapping[str, tf.Tensor]] = dataclasses.field(
        repr=False
    )
    is_compiled: bool = False
    optional: frozenset[str] = frozenset()
    #: Names of the products of a model for several.
    products: tuple[str, ...] = ()
    #: The highest value of the inputs that have one, by name.
    highest: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def is_batched(self) -> bool:
        """Whether rows of several requests may run together."""
        return all(
            spec.shape.rank and spec.shape[0] is None
            for spec in (*self.inputs.values(), *self.outputs.values())
        )

    def run(self, inputs: Arrays) -> Arrays:
        """Runs on arrays; threads may do so at the same time."""
        rows = None
        if self.is_compiled and self.is_batched:
            rows = len(next(iter(inputs.values())))
            missing = (1 << max(rows - 1, 0).bit_length()) - rows
            if rows and missing:
                inputs = {
                    name: np.concatenate([x, np.repeat(x[-1:], missing, 0)])
                    for name, x in inputs.items()
                }
        tensors = {
            name: tf.constant(value, self.inputs[name].dtype)
            for name, value in inputs.items()
        }
        results = self.function(**tensors)
        outputs = {name: value.numpy() for name, value in results.items()}
        if rows is None:
            return outputs
        return {name: value[:rows] for name, value in outputs.items()}

    def check_names(self, names: set[str]) -> None:
        """Raises an error unless exactly the inputs are given.

        Those that are optional need not be.
        """
        expected = set(self.inputs) - (self.optional - names)
        if names != expected:
            raise invalid(
                f"input size does not match signature: {len(names)}!="
                f"{len(expected)}. Sent extra: "
                f"{{{','.join(sorted(names - expected))}}}. Missing but "
                f"required: {{{','.join(sorted(expected - names))}}}."
            )

    def check_shape(self, name: str, shape: tuple[int, ...]) -> None:
        """Raises an error unless an input may have that shape."""
        expected = self.inputs[name].shape
        if min(shape, default=0) < 0 or not expected.is_compatible_with(shape):
            raise invalid(
                f"The input {name!r} must have the shape {_show(expected)}. "
                f"Received: {_show(shape)}"
            )

    def check_rows(self, count: int, max_rows: int) -> None:
        """Raises an error if there are too many rows; before they are read."""
        if self.is_batched and count > max_rows:
            raise too_large(
                f"A request may have {max_rows} rows. Received: {count}"
            )

    def memory_needed(self, inputs: Arrays) -> int:
        """Returns the bytes of memory that inputs and their answer take, about.

        Outputs of open size are taken to be as large as the inputs.
        """
        rows = len(next(iter(inputs.values()))) if self.is_batched else 1
        largest = max(value.size // rows for value in inputs.values())
        num_values = 0
        for spec in self.outputs.values():
            shape = spec.shape[1:] if self.is_batched else spec.shape
            num_values += shape.num_elements() or largest
        size = rows * num_values * _BYTES_OF_OUTPUT
        for value in inputs.values():
            is_text = value.dtype == object
            size += sum(map(len, value.flat)) if is_text else value.nbytes
        return size

    def complete(self, inputs: Arrays) -> Arrays:
        """Returns inputs with what stands for those that are left out."""
        if not self.optional:
            return inputs
        rows = max(len(value) for value in inputs.values())
        missing = self.optional - set(inputs)
        dtypes = {name: self.inputs[name].dtype for name in missing}
        return inputs | {
            name: np.full(rows, left_out(dtype.name), dtype.as_numpy_dtype)
            for name, dtype in dtypes.items()
        }

    def check_values(self, inputs: Arrays, allow_non_finite: bool) -> int:
        """Returns the number of rows, which all inputs must share.

        It is 1 if rows cannot be counted. Raises an error if they differ, or
        values are not finite, or far too high.
        """
        check_options(inputs, self.optional)
        if "product" in self.optional:
            for product in inputs["product"].ravel().tolist():
                if product != left_out("int32"):
                    self.product_index(product)
        for name, value in inputs.items():
            is_checked = not allow_non_finite and name not in self.optional
            if is_checked and not is_finite(value):
                raise invalid(
                    f"The input {name!r} holds values that are not finite, "
                    "which a model cannot score."
                )
            highest = self.highest.get(name)
            if highest is None or value.dtype.kind != "f":
                continue
            found = value.max(initial=0)
            if FAR_TOO_HIGH * highest < found < math.inf:
                raise invalid(
                    f"The input {name!r} must have values up to {highest:g}. "
                    f"Received: values up to {found:g}. Divide 8-bit images by "
                    "255."
                )
        if not self.is_batched:
            return 1
        rows = {name: len(value) for name, value in inputs.items()}
        if len(set(rows.values())) > 1:
            raise invalid(
                "All inputs must have the same number of rows. "
                f"Received: {rows}"
            )
        count = next(iter(rows.values()))
        if count == 0:
            # Kernels differ in what they make of it.
            raise invalid("There are no rows in the request.")
        return count

    def product_index(self, product: Any) -> int:
        """Returns the index of a product by its name or index."""
        try:
            return product_index(self.products, product)
        except ValueError as error:
            raise invalid(f"The input 'product': {error}") from error

    def check_outputs(self, names: Sequence[str]) -> None:
        """Raises an error unless there are such outputs, each named once."""
        for name in names:
            if name not in self.outputs:
                raise invalid(
                    f"output tensor alias not found in signature: {name} "
                    "Outputs expected to be in the set "
                    f"{{{','.join(sorted(self.outputs))}}}."
                )
        if len(set(names)) < len(names):
            raise invalid(f"duplicate output tensor alias among {names}")


def check_options(inputs: Arrays, names: Collection[str]) -> None:
    """Raises an error unless the optional inputs of a request make sense.

    NaN stands for what is left out.
    """
    for name in names:
        if inputs[name].dtype.kind == "f" and np.isinf(inputs[name]).any():
            raise invalid(f"The input {name!r} must be finite, or NaN.")
    if not {"threshold", "sensitivity"} <= set(names):
        return
    threshold, sensitivity = inputs["threshold"], inputs["sensitivity"]
    if np.any((sensitivity < 0) | (sensitivity > 1)):
        raise invalid("The input 'sensitivity' must lie in [0, 1], or be NaN.")
    if len(threshold) == len(sensitivity) and not np.all(
        np.isnan(threshold) | np.isnan(sensitivity)
    ):
        raise invalid("Give a threshold or a sensitivity, not both.")


def check_finite(outputs: Arrays) -> None:
    """Raises an error unless all outputs are finite."""
    for name, value in outputs.items():
        if not is_finite(value):
            raise ServingError(
                StatusCode.INTERNAL,
                f"The model's output {name!r} is not finite, so that there is "
                "no answer. The values of the request are too large for the "
                "model, or the model is damaged.",
            )


def is_finite(array: np.ndarray) -> bool:
    """Whether an array holds neither NaN nor infinity."""
    # NumPy does not take bfloat16 for a float.
    if array.dtype.kind in "OSUbiu":
        return True
    return bool(np.isfinite(array).all())


def _show(shape: Any) -> str:
    if isinstance(shape, tf.TensorShape) and shape.rank is None:
        return "(...)"
    return f"({', '.join('?' if s is None else str(s) for s in shape)})"
