"""The numerics' carriers as files: tensors as safetensors, all else as JSON beside them, and no pickle.

What a file holds is told by the carriers' own annotations: a frozen dataclass of tensors, numbers, texts,
flags, tuples, mappings and of other such dataclasses needs no line here.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

_TREE = "tree"


Given = Mapping[type, Any]
"""Values that are not in the file, by their type: whoever reads has them. The torch.device is among them."""


def save_carrier(value: object, path: Path, given: Given) -> None:
    """Write a carrier.

    Raises:
        TypeError: it holds something that is none of the above.
    """
    tensors: dict[str, Tensor] = {}
    tree = _encode(value, tensors, given)
    save_file(tensors, path, metadata={_TREE: json.dumps(tree)})


def load_carrier(kind: Any, path: Path, given: Given) -> Any:
    """Read a carrier of this annotation, or of a type derived from it.

    Raises:
        ValueError: the file does not hold one.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
            tree = json.loads(file.metadata()[_TREE])
        return _decode(kind, tree, tensors, given)
    except (TypeError, ValueError, LookupError, AttributeError, SafetensorError) as error:
        raise ValueError(f"{path.name} holds no such carrier ({type(error).__name__}: {error})") from error


def _encode(value: Any, tensors: dict[str, Tensor], given: Given) -> Any:
    if type(value) in given:
        return None
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Tensor():
            name = str(len(tensors))
            tensors[name] = _alone(value.cpu(), tensors.values())
            return [name, value.device.type]
        case Enum():
            return value.value
        case Path():
            return str(value)
        case Mapping():
            return {key: _encode(item, tensors, given) for key, item in value.items()}
        case tuple() | list():
            return [_encode(item, tensors, given) for item in value]
        case frozenset():
            return sorted(value)
        case _ if is_dataclass(value):
            content = {field.name: getattr(value, field.name) for field in fields(value)}
            return [type(value).__name__, _encode(content, tensors, given)]
    raise TypeError(f"{type(value).__name__} is nothing that a carrier's file can hold")


def _alone(tensor: Tensor, others: Collection[Tensor]) -> Tensor:
    """A copy where it is a slice or a transpose of a tensor, or among the others: a file holds no such."""
    whole = tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.nbytes
    if whole and all(tensor.data_ptr() != other.data_ptr() for other in others):
        return tensor
    return tensor.clone(memory_format=torch.contiguous_format)


def _decode(kind: Any, tree: Any, tensors: Mapping[str, Tensor], given: Given) -> Any:
    origin, parts = get_origin(kind), get_args(kind)
    if kind in given:
        return given[kind]
    if origin in (Union, UnionType):
        (only,) = (part for part in parts if part is not NoneType)
        return None if tree is None else _decode(only, tree, tensors, given)
    if origin is None and is_dataclass(kind):
        name, content = tree
        cls = {found.__name__: found for found in _family(kind)}[name]
        hints = get_type_hints(cls)
        return cls(**{field: _decode(hints[field], item, tensors, given) for field, item in content.items()})
    if kind is Tensor:
        name, device = tree
        return tensors[name] if device == "cpu" else tensors[name].to(given[torch.device])
    if origin is tuple and parts[-1] is not Ellipsis:
        return tuple(_decode(part, item, tensors, given) for part, item in zip(parts, tree, strict=True))
    if origin in (tuple, frozenset):
        return origin(_decode(parts[0], item, tensors, given) for item in tree)
    if isinstance(tree, dict):
        return {key: _decode(parts[1], item, tensors, given) for key, item in tree.items()}
    return kind(tree)


def _family(kind: Any) -> list[Any]:
    """The type, and all that derive from it: of an abstract one, those that there can be values of."""
    return [kind, *(found for derived in kind.__subclasses__() for found in _family(derived))]
