"""Mixed precision: products in sixteen bits, parameters and what is delicate in float32."""

from tinygrad_bn.amp.regions import autocast as autocast
from tinygrad_bn.amp.regions import custom_fwd as custom_fwd
from tinygrad_bn.amp.regions import get_autocast_dtype as get_autocast_dtype
from tinygrad_bn.amp.regions import is_autocast_enabled as is_autocast_enabled
from tinygrad_bn.amp.scaling import GradScaler as GradScaler
