# SPDX-License-Identifier: Apache-2.0
"""The pickle of a PyTorch state dict, interpreted without running any code of it.

Only the opcodes and names below are known. Whatever else a pickle contains, such as a
function to call, is refused by its name.
"""

import pickletools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from trm_jax.errors import CheckpointError

STORAGES: dict[str, Any] = {
    "Float": np.dtype("float32"),
    "Double": np.dtype("float64"),
    "Half": np.dtype("float16"),
    "BFloat16": jnp.dtype("bfloat16"),
    "Long": np.dtype("int64"),
    "Int": np.dtype("int32"),
    "Short": np.dtype("int16"),
    "Char": np.dtype("int8"),
    "Byte": np.dtype("uint8"),
    "Bool": np.dtype("bool"),
}
DICT = "collections.OrderedDict"
TENSOR = "torch._utils._rebuild_tensor_v2"
PARAMETER = "torch._utils._rebuild_parameter"
_DTYPES = {f"torch.{name}Storage": dtype for name, dtype in STORAGES.items()}
_NAMES = {DICT, TENSOR, PARAMETER, *_DTYPES}
_LITERALS = {
    *("BINUNICODE", "SHORT_BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1"),
    "BINFLOAT",
}
_NEW: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()


class Storage(NamedTuple):
    """A member of the archive: its name there, and what it holds."""

    key: str
    dtype: Any
    size: int  # elements


class View(NamedTuple):
    """A tensor: a strided view into a storage, in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Name(NamedTuple):
    """One of the known names."""

    text: str


def interpret(data: bytes, source: str) -> Any:
    """The pickled value: dicts, lists, texts and numbers, with a View for each tensor.

    Raises CheckpointError, which names a foreign opcode or name.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "STOP":
                (value,) = stack
                return value
            _execute(opcode.name, argument, stack, memo, source)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{source}: its pickle is damaged") from error
    raise CheckpointError(f"{source}: its pickle is damaged: it has no end")


def _execute(
    name: str, argument: Any, stack: list[Any], memo: dict[int, Any], source: str
) -> None:
    """Execute one opcode."""
    match name:
        case "PROTO" | "FRAME":
            pass
        case "MARK":
            stack.append(_MARK)
        case "BINPUT" | "LONG_BINPUT":
            memo[argument] = stack[-1]
        case "MEMOIZE":
            memo[len(memo)] = stack[-1]
        case "BINGET" | "LONG_BINGET":
            stack.append(memo[argument])
        case "TUPLE":
            stack.append(tuple(_popped_to_mark(stack)))
        case "GLOBAL":
            stack.append(_known(argument.replace(" ", "."), source))
        case "STACK_GLOBAL":
            stack.append(_known(".".join(_popped(name, stack, 2)), source))
        case "BINPERSID":
            stack.append(_storage(stack.pop()))
        case "REDUCE":
            stack.append(_called(*_popped(name, stack, 2)))
        case "SETITEM" | "SETITEMS":
            found = _popped(name, stack, 2)
            stack[-1].update(zip(found[::2], found[1::2], strict=True))
        case "APPEND" | "APPENDS":
            stack[-1].extend(_popped(name, stack, 1))
        case "BUILD":  # sets attributes, which are not needed
            stack.pop()
        case _ if name in _LITERALS:
            stack.append(argument)
        case _ if name in _NEW:
            stack.append(_NEW[name]())
        case _ if name in _TUPLES:
            count = _TUPLES[name]
            stack[-count:] = [tuple(stack[-count:])]
        case _:
            raise CheckpointError(
                f"{source}: its pickle has the opcode {name}, which no state dict "
                "needs; it is refused"
            )


def _popped(name: str, stack: list[Any], count: int) -> list[Any]:
    """The items of SETITEMS or APPENDS; for other opcodes, the last `count`."""
    if name.endswith("S"):
        return _popped_to_mark(stack)
    found = stack[-count:]
    del stack[-count:]
    return found


def _popped_to_mark(stack: list[Any]) -> list[Any]:
    place = max(i for i, item in enumerate(stack) if item is _MARK)
    found = stack[place + 1 :]
    del stack[place:]
    return found


def _known(text: str, source: str) -> _Name:
    if text not in _NAMES:
        raise CheckpointError(
            f"{source}: its pickle refers to {text[:100]}, which no state dict needs; "
            "it is refused"
        )
    return _Name(text)


def _storage(identity: Any) -> Storage:
    """What a persistent id stands for: ("storage", kind, key, device, size)."""
    tag, kind, key, _, size = identity
    if tag != "storage" or not isinstance(key, str) or not _is_count(size):
        raise ValueError
    return Storage(key, _DTYPES[kind.text], size)


def _called(name: Any, arguments: Any) -> Any:
    """The result of one of the known functions."""
    function = name.text
    if function == DICT:
        return dict(*arguments)
    if function == PARAMETER:
        return arguments[0]
    if function != TENSOR:
        raise ValueError
    storage, offset, shape, strides = arguments[:4]
    if not isinstance(storage, Storage) or len(shape) != len(strides):
        raise ValueError
    if not all(map(_is_count, (offset, *shape, *strides))):
        raise ValueError
    return View(storage, offset, shape, strides)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**60
