"""Samples of images of another size."""

from __future__ import annotations

from tests.ops.samples import Sample, normal


def call(name, x, *args, order=2, oracle=True, **options):
    return Sample(
        name,
        lambda t, x: getattr(t.nn.functional, name)(x, *args, **options),
        (x,),
        order=order,
        oracle=oracle,
        notes="-".join(map(str, (*args, *(f"{k}={v}" for k, v in options.items())))),
    )


SAMPLES = [
    call("interpolate", normal(2, 2, 4), 7, order=3),
    call("interpolate", normal(1, 2, 4, 3), scale_factor=2.4),
    call("interpolate", normal(1, 2, 4, 3), (3, 7), mode="nearest-exact"),
    call("interpolate", normal(2, 2, 4), 7, mode="linear", order=3),
    call("interpolate", normal(1, 2, 4, 3), (3, 7), mode="bilinear"),
    call("interpolate", normal(1, 2, 4, 3), (3, 7), mode="bilinear", align_corners=True),
    call("interpolate", normal(1, 4, 3, 2), (3, 7), mode="bilinear", axis=-1, oracle=False),
    call("interpolate", normal(1, 1, 2, 2, 3), scale_factor=(1.0, 2.5, 0.7), mode="trilinear"),
    call("interpolate", normal(1, 2, 4, 3), (6, 2), mode="bicubic"),
    call("interpolate", normal(1, 2, 4, 3), (6, 2), mode="bicubic", align_corners=True),
    call("interpolate", normal(1, 2, 4, 5), 3, mode="area"),
    call("pixel_shuffle", normal(2, 8, 3, 2), 2),
    call("pixel_shuffle", normal(9, 1, 2), 3),
    call("pixel_unshuffle", normal(2, 2, 4, 6), 2),
    call("pixel_unshuffle", normal(1, 3, 6), 3),
]
