"""Gradients: of any order, by one chain rule."""

from tinygrad_bn.autograd import functional as functional
from tinygrad_bn.autograd.engine import backward as backward
from tinygrad_bn.autograd.engine import grad as grad
from tinygrad_bn.autograd.function import Function as Function
from tinygrad_bn.autograd.numerical import gradcheck as gradcheck
from tinygrad_bn.autograd.numerical import gradgradcheck as gradgradcheck
from tinygrad_bn.config import detect_anomaly as detect_anomaly
from tinygrad_bn.config import enable_grad as enable_grad
from tinygrad_bn.config import inference_mode as inference_mode
from tinygrad_bn.config import no_grad as no_grad
from tinygrad_bn.config import set_detect_anomaly as set_detect_anomaly
from tinygrad_bn.config import set_grad_enabled as set_grad_enabled
