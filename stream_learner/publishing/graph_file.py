"""`saved_model.pb` with the same bytes whenever the graph is the same.

TensorFlow numbers functions and their captured inputs by counters of the process, so a graph traced after a restart
would be written differently from the same one traced before. Here functions are numbered by their order in the file,
names that are nothing but such a counter are dropped, and so are the tracing process' own thread settings, which a
server has no use for; maps are written in the order of their keys.
"""

from __future__ import annotations

import re
from typing import Any

from tensorflow.core.protobuf import saved_model_pb2

_COUNTED = re.compile(r"(.*_)(\d+)")
_SESSION = "config_proto"  # of a call: the devices and threads of the process that traced it; empty = the server's own
_CAPTURE_NAME = "_user_specified_name"  # of a captured variable it is only its counter; nothing reads it


def canonical(serialized: bytes) -> bytes:
    """The same SavedModel, in a form that does not depend on what else the process has traced."""
    model = saved_model_pb2.SavedModel()
    model.ParseFromString(serialized)
    for graph in model.meta_graphs:
        functions = list(graph.graph_def.library.function)
        _forget_process([*graph.graph_def.node, *(node for function in functions for node in function.node_def)])
        for function in functions:
            for attributes in function.arg_attr.values():
                if attributes.attr[_CAPTURE_NAME].s.isdigit():
                    del attributes.attr[_CAPTURE_NAME]
        _rename(graph, _ordered_names([function.signature.name for function in functions]))
        functions = sorted(graph.graph_def.library.function, key=lambda function: str(function.signature.name))
        del graph.graph_def.library.function[:]
        graph.graph_def.library.function.extend(functions)
    out: bytes = model.SerializeToString(deterministic=True)
    return out


def _forget_process(nodes: list[Any]) -> None:
    for node in nodes:
        if _SESSION in node.attr:
            node.attr[_SESSION].s = b""


def _ordered_names(names: list[str]) -> dict[str, str]:
    """Name -> the same with its counter replaced by its rank among all."""
    counted = [(int(match[2]), match[1], name) for name in names if (match := _COUNTED.fullmatch(name))]
    return {name: f"{stem}{rank:04d}" for rank, (_, stem, name) in enumerate(sorted(counted))}


def _rename(message: Any, names: dict[str, str]) -> None:
    """Replaces every string in a protocol buffer that is one of `names`, keys of maps included."""
    for field, value in message.ListFields():
        if field.message_type and field.message_type.GetOptions().map_entry:
            _rename_map(value, field.message_type, names)
        elif field.message_type:
            for inner in value if field.is_repeated else [value]:
                _rename(inner, names)
        elif field.type == field.TYPE_STRING and field.is_repeated:
            value[:] = [names.get(text, text) for text in value]
        elif field.type == field.TYPE_STRING:
            setattr(message, field.name, names.get(value, value))


def _rename_map(entries: Any, entry_type: Any, names: dict[str, str]) -> None:
    of_messages = entry_type.fields_by_name["value"].message_type is not None
    for key in list(entries):
        if of_messages:
            _rename(entries[key], names)
        elif entries[key] in names:
            entries[key] = names[entries[key]]
        if key in names:
            if of_messages:
                entries[names[key]].CopyFrom(entries[key])
            else:
                entries[names[key]] = entries[key]
            del entries[key]
