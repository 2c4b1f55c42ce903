"""Two instructions of processors that numba has no words for."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types  # pyright: ignore[reportPrivateImportUsage]
from numba.core import cgutils
from numba.extending import intrinsic


def _count_zeros(typing_context, x):
    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], context.get_constant(types.boolean, True))

    return types.uint64(types.uint64), generate


trailing_zeros: Any = intrinsic(_count_zeros)


def _fetch_row(typing_context, array, row):
    def generate(context, builder, signature, arguments):
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        stride = cgutils.unpack_tuple(builder, view.strides)[0]
        start = builder.ptrtoint(view.data, stride.type)
        place = builder.add(start, builder.mul(arguments[1], stride))
        byte, number = ir.PointerType(ir.IntType(8)), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        read, keep, data = (ir.Constant(number, x) for x in (0, 3, 1))
        builder.call(function, [builder.inttoptr(place, byte), read, keep, data])
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


prefetch: Any = intrinsic(_fetch_row)
