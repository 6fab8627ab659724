"""Steps as programs: traced once, replayed without the tape."""

from tinygrad_bn.capture.compiled import Compiled as Compiled
from tinygrad_bn.capture.compiled import compile as compile
from tinygrad_bn.capture.program import Program as Program
