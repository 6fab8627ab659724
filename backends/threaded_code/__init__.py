"""Threaded code: a list of calls of machine code on memory that does not move, run by a small
compiled loop, without Python in between.

What is called is what eager calls: functions that Numba compiled, NumPy's own inner loops, NumPy's
own BLAS. So the bits are the same, and nothing is compiled for a program but the entries, which
pass the words of an operand block on as arguments. Bell 1973, "Threaded code", Communications of
the ACM 16(6).
"""

from .assembly import Code, NativeCall
from .chains import chained
from .lowering import machine_code
from .objects import Expected, Held

__all__ = ["Code", "Expected", "Held", "NativeCall", "chained", "machine_code"]
