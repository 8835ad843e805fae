"""The block in plain loops, written from the paper's equations."""

import itertools

import numpy as np


def masked_conv(x, kernel, bias, k, d, m, padding_mode="zeros", branch=None):
    """Rank 2 or 3, channels last; `branch` is applied to each corner."""
    rank = x.ndim - 2
    field = 2 * k + 2 * d + m
    offset = k + 2 * d + m
    before = (field - 1) // 2
    widths = [(0, 0)] + [(before, field - 1 - before)] * rank + [(0, 0)]
    mode = "reflect" if padding_mode == "reflect" else "constant"
    padded = np.pad(x.astype("float64"), widths, mode=mode)
    output = np.zeros((*x.shape[:-1], kernel.shape[-1]))
    corners = list(itertools.product((0, 1), repeat=rank))
    for index, corner in enumerate(corners):
        part = np.zeros_like(output)
        for position in np.ndindex(*x.shape[1:-1]):
            for tap in itertools.product(range(k), repeat=rank):
                source = tuple(
                    p + c * offset + t
                    for p, c, t in zip(position, corner, tap, strict=True)
                )
                weights = kernel[
                    tuple(c * k + t for c, t in zip(corner, tap, strict=True))
                ]
                part[(slice(None), *position)] += (
                    padded[(slice(None), *source)] @ weights
                )
        if bias is not None:
            part = part + bias[index]
        output += branch(part) if branch else part
    return output


def relu(x):
    return np.maximum(x, 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def channel_attention(z, w1, b1, w2, b2):
    means = z.mean(axis=(1, 2))
    gate = sigmoid(relu(means @ w1 + b1) @ w2 + b2)
    return z * gate[:, None, None, :]
