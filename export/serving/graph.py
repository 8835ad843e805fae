"""The graph of a SavedModel, as it is on disk."""

import pathlib
from typing import Any

from tensorflow.core.protobuf import saved_model_pb2


def read_meta_graph(path: pathlib.Path) -> Any:
    """Returns the `MetaGraphDef` that is served.

    Args:
        path: Folder of the SavedModel.

    Raises:
        ValueError: If there is none.
    """
    file = path / "saved_model.pb"
    if not file.is_file():
        raise ValueError(f"{path} holds no saved_model.pb")
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    for graph in saved.meta_graphs:
        if "serve" in graph.meta_info_def.tags:
            return graph
    raise ValueError(f"{file} holds no graph with the tag 'serve'")
