"""Samples of convolutions and of what they are made of; to order 3, as in a gradient penalty."""

from __future__ import annotations

from tests.ops.samples import Sample, normal


def conv(x, w, b=None, notes="", order=3, **options):
    """A sample of the convolution that the weight is for."""
    name = f"conv{w.ndim - 2}d"
    inputs = (x, w) if b is None else (x, w, b)
    return Sample(
        name,
        lambda t, *tensors: getattr(t.nn.functional, name)(*tensors, **options),
        inputs,
        order=order,
        notes=notes or "-".join(f"{k}={v}" for k, v in options.items()),
    )


def transposed(x, w, b=None, **options):
    """A sample of the transposed convolution that the weight is for."""
    name = f"conv_transpose{w.ndim - 2}d"
    return Sample(
        name,
        lambda t, *tensors: getattr(t.nn.functional, name)(*tensors, **options),
        (x, w) if b is None else (x, w, b),
        order=3,
        notes="-".join(f"{k}={v}" for k, v in options.items()),
    )


def last(t, x, w, b):
    """Channels last, for which PyTorch has another memory format and no axis."""
    return t.nn.functional.conv2d(x, w, b, stride=2, padding=1, groups=2, axis=-1)


def windows(name, x, *args, **options):
    return Sample(
        name,
        lambda t, x: getattr(t.nn.functional, name)(x, *args, **options),
        (x,),
        notes="-".join(map(str, (*args, *(f"{k}={v}" for k, v in options.items())))),
    )


V = normal(4, 3, 2, 2, seed=3)
W, B = normal(4, 2, 3, 2, seed=1), normal(4, seed=2)

SAMPLES = [
    conv(normal(2, 3, 7), normal(4, 3, 3), B),
    conv(normal(2, 2, 6), normal(2, 2, 3), stride=2, padding=1),
    conv(normal(3, 5), normal(2, 3, 2), normal(2), notes="no-samples"),
    conv(normal(2, 2, 5, 4), W, B),
    conv(normal(2, 2, 5, 4), W, B, stride=(2, 1), padding=(1, 2)),
    conv(normal(2, 2, 6, 4), W, dilation=2, padding="same"),
    conv(normal(2, 4, 4, 3), W, B, groups=2, padding=1),
    conv(normal(2, 3, 4, 4), normal(6, 1, 2, 2), normal(6), groups=3, notes="depthwise"),
    conv(normal(2, 3, 2, 3), normal(4, 3, 1, 1), B, notes="points"),
    conv(normal(2, 4, 2, 2), normal(4, 2, 1, 1), groups=2, notes="points"),
    conv(normal(1, 2, 3, 3, 2), normal(2, 2, 2, 2, 1), normal(2), stride=(1, 2, 1), padding=1),
    Sample("conv2d", last, (normal(2, 4, 5, 4), W, B), order=3, oracle=False, notes="last"),
    transposed(normal(2, 3, 4), normal(3, 2, 3), normal(2), stride=2),
    transposed(normal(2, 4, 3, 3), V, normal(3)),
    transposed(normal(2, 4, 3, 3), V, normal(6), stride=2, padding=1, output_padding=1, groups=2),
    transposed(normal(4, 3, 2), V, dilation=3, output_padding=2),
    transposed(normal(1, 2, 2, 2, 1), normal(2, 2, 2, 1, 2), normal(2), stride=(2, 1, 1)),
    windows("unfold", normal(2, 3, 5, 4), (2, 3), padding=1, stride=2),
    windows("unfold", normal(2, 6, 4), 2, dilation=2),
    windows("unfold", normal(0, 2, 3, 3), 2),
    windows("fold", normal(2, 12, 12), (4, 5), (2, 2)),
    windows("fold", normal(2, 18, 6), (5, 4), (2, 3), padding=1, stride=2),
    windows("fold", normal(8, 4), (4, 5), 2, dilation=(2, 1), stride=(1, 2)),
]
