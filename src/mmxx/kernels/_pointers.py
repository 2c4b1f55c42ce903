"""Addresses as arrays inside compiled code, so that one call works on many arrays."""

from __future__ import annotations

from typing import Any

from numba import types  # pyright: ignore[reportPrivateImportUsage]
from numba.extending import intrinsic


def _typed_pointer(typing_context, address, like):
    """The address as a pointer to the element type of ``like``; the form is numba's."""
    pointer = types.CPointer(like.dtype)

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(pointer))

    return pointer(types.int64, like), generate


typed_pointer: Any = intrinsic(_typed_pointer)
