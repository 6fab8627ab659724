"""Recurrent networks with norms, written from the equations of their papers with PyTorch: padded
sequences, one step after the other, each sequence taking part as long as it lasts.
"""

from __future__ import annotations

from typing import Any

import torch


class Paper:
    """Layers with the parameters ``p`` of one of ours, by name.

    ``statistics`` collects, by norm and step, the mean and the unbiased variance of each batch; in
    evaluation they come from ``known``, which has (mean, var) by the same keys.
    """

    def __init__(self, kind: str, p: dict[str, Any], known: Any = None, eps: float = 1e-5) -> None:
        self.norm, self.cell = kind[:9], kind[9:]
        self.p, self.known, self.eps = p, known, eps
        self.statistics: dict[tuple[str, int], Any] = {}

    def normalized(self, name: str, x: Any, step: int, running: Any) -> Any:
        """x (N, C) of which the sequences ``running`` take part."""
        weight, bias = self.p[f"{name}.weight"], self.p.get(f"{name}.bias", 0.0)
        if self.norm == "LayerNorm":
            mean, var = x.mean(1, keepdim=True), x.var(1, unbiased=False, keepdim=True)
        elif self.known is not None:
            mean, var = self.known(name, step)
        else:
            kept = x[running]
            mean, var = kept.mean(0), kept.var(0, unbiased=False)
            unbiased = var * len(kept) / max(len(kept) - 1, 1)
            self.statistics[name, step] = (mean.detach(), unbiased.detach(), len(kept))
        return weight * (x - mean) / torch.sqrt(var + self.eps) + bias

    def step(self, s: str, x: Any, states: Any, t: int, on: Any) -> Any:
        p, h = self.p, states[0]
        gx, gh = x @ p["weight_ih" + s].T, h @ p["weight_hh" + s].T
        b, b_h = p["bias_ih" + s], p["bias_hh" + s]
        if self.norm == "LayerNorm" and self.cell == "RNN":
            return (torch.tanh(self.normalized("norm_h" + s, gx + gh, t, on) + b + b_h),)
        if self.norm == "LayerNorm" and self.cell == "GRU":
            k = 2 * h.shape[1]
            ax = [self.normalized("norm_ih" + s, gx[:, :k], t, on)]
            ax = torch.cat([*ax, self.normalized("norm_in" + s, gx[:, k:], t, on)], 1)
            ah = [self.normalized("norm_hh" + s, gh[:, :k], t, on)]
            ah = torch.cat([*ah, self.normalized("norm_hn" + s, gh[:, k:], t, on)], 1)
        else:
            ax = self.normalized("norm_ih" + s, gx, t, on)
            ah = self.normalized("norm_hh" + s, gh, t, on)
        if self.cell == "RNN":
            return (torch.tanh(ax + ah + b + b_h),)
        if self.cell == "GRU":
            r, z, n = (ax + b).chunk(3, 1)
            r_h, z_h, n_h = (ah + b_h).chunk(3, 1)
            r, z = torch.sigmoid(r + r_h), torch.sigmoid(z + z_h)
            return ((1 - z) * torch.tanh(n + r * n_h) + z * h,)
        i, f, g, o = (ax + ah + b + b_h).chunk(4, 1)
        c = torch.sigmoid(f) * states[1] + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(self.normalized("norm_c" + s, c, t, on)), c

    def direction(self, s: str, x: Any, lengths: Any) -> tuple[Any, ...]:
        """x (T, N, I) through one layer, and the last states; from the ends for a suffix that says
        so.
        """
        steps, n, _ = x.shape
        size = self.p["weight_hh" + s].shape[1]
        order = torch.arange(steps)[:, None].expand(steps, n)
        if s.endswith("reverse"):  # within the lengths
            order = torch.where(order < lengths, lengths - 1 - order, order)
        columns = torch.arange(n)
        x = x[order, columns]
        states = [x.new_zeros(n, size) for _ in range(2 if self.cell == "LSTM" else 1)]
        outputs = []
        for t in range(steps):
            on = lengths > t
            after = self.step(s, x[t], states, t, on)
            running = on[:, None]
            states = [
                torch.where(running, new, old) for new, old in zip(after, states, strict=True)
            ]
            outputs.append(torch.where(running, after[0], torch.zeros(())))
        return torch.stack(outputs)[order, columns], *states

    def __call__(self, x: Any, lengths: Any) -> list[Any]:
        """The output (T, N, ·) of all layers, and the last states, each stacked."""
        layers = sum(name.startswith("weight_ih") for name in self.p)
        both = any(name.endswith("reverse") for name in self.p)
        final = []
        for layer in range(layers // (2 if both else 1)):
            suffixes = [f"_l{layer}", f"_l{layer}_reverse"] if both else [f"_l{layer}"]
            parts = [self.direction(s, x, lengths) for s in suffixes]
            x = torch.cat([part[0] for part in parts], 2)
            final += [part[1:] for part in parts]
        return [x, *(torch.stack(list(each)) for each in zip(*final, strict=True))]
