"""Training steps on the GPU: this library's beside PyTorch's, as written, compiled, and as CUDA
graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import asdict
from importlib import import_module
from itertools import cycle
from typing import Any

from agreement import Distance, distance, walk
from cases import MNIST, Arrays, Case
from compare import best, ratio, spread
from rivals import package
from rivals.modules import perceptron, tensors

from on_gpu import DEVICE, Bench, forget, reason
from on_gpu.timing import compare

CASES = (
    *(Case(f"b{batch}", MNIST, batch) for batch in (64, 1024, 16384)),
    Case("wide", (1024, 4096, 4096, 4096, 1000), 8192),
)
DTYPES = ("float32", "bfloat16")
OURS = ("tinygrad_bn eager", "tinygrad_bn compiled")
FORMS = (
    *OURS,
    "torch eager",
    "torch fused",
    "torch compiled",
    "torch graphed",
    "torch compiled and graphed",
)
RATE = 1e-6
"""The learning rate while it is timed: so slow that the loss stays where it is."""
SAME = {"float32": Distance(1e-3, 0.15), "bfloat16": Distance(2e-2, 1.0)}
"""How far a form may end from ours after three steps of Adam, which makes a whole step of a
gradient that is nothing but rounding: of float32 as on the CPU. bfloat16 rounds to 2⁻⁸, and turns
the sign of many a small gradient: movements as far apart as they are long would be unrelated.
"""


class Training:
    """A model, Adam and batches on a device, in one form of one library."""

    def __init__(self, form: str, case: Case, dtype: str, device: str) -> None:
        name, _, how = form.partition(" ")
        library = import_module(name)
        self.model = perceptron(library, case, "float32").to(device)
        batches = [(x.to(device), y.to(device)) for x, y in tensors(library, case, "float32")]
        self.rate: Any = None
        options: dict[str, Any] = {"fused": True} if name == "torch" and how != "eager" else {}
        if "graphed" in how:  # a number would be a constant of the graph
            self.rate = library.tensor(1e-3, device=device)
            options["capturable"] = True
        rate = 1e-3 if self.rate is None else self.rate
        self.optimizer = library.optim.Adam(self.model.parameters(), lr=rate, **options)
        loss_of = losses(library, self.model, dtype, device.partition(":")[0])
        if name == "torch" and "compiled" in how:
            loss_of = library.compile(loss_of, dynamic=False)
        step = step_of(loss_of, self.optimizer)
        if name != "torch" and how == "compiled":
            step = library.compile(step)
        if "graphed" in how:
            step = graphed(library, loss_of, self.model, self.optimizer, *batches[0])
        self._step, self.batches = step, cycle(batches)

    def step(self) -> Any:
        return self._step(*next(self.batches))

    def learn(self, rate: float) -> None:
        if self.rate is not None:
            self.rate.fill_(rate)
            return
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def state(self) -> Arrays:
        """Parameters and running statistics, as they are now."""
        return {
            name: x.detach().to("cpu").numpy().copy()
            for name, x in self.model.state_dict().items()
            if not name.endswith("num_batches_tracked")
        }


def losses(library: Any, model: Any, dtype: str, kind: str) -> Callable[[Any, Any], Any]:
    """The loss of a batch. No weight is used twice, so none is kept as it was cast, which a graph
    could not be captured with.
    """

    def region() -> Any:
        if dtype == "float32":
            return nullcontext()
        return library.amp.autocast(kind, dtype=getattr(library, dtype), cache_enabled=False)

    def loss_of(x: Any, y: Any) -> Any:
        with region():
            return library.nn.functional.cross_entropy(model(x), y)

    return loss_of


def step_of(loss_of: Callable[[Any, Any], Any], optimizer: Any) -> Callable[[Any, Any], Any]:
    """A training step as a user writes it."""

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_of(x, y)
        loss.backward()
        optimizer.step()
        return loss

    return step


def graphed(
    torch: Any, loss_of: Callable[[Any, Any], Any], model: Any, optimizer: Any, x: Any, y: Any
) -> Callable[[Any, Any], Any]:
    """PyTorch's whole step as one CUDA graph: a batch is copied to where the graph reads it.

    What is captured must have run on another stream before; that moves the model, which is then
    put back in place.
    """
    step, x, y = step_of(loss_of, optimizer), x.clone(), y.clone()
    begin = {name: value.clone() for name, value in model.state_dict().items()}
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            step(x, y)
    torch.cuda.current_stream().wait_stream(aside)
    optimizer.zero_grad(set_to_none=True)  # gradients then belong to the graph
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = loss_of(x, y)
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        for name, value in model.state_dict().items():
            value.copy_(begin[name])
        for state in optimizer.state.values():
            for value in state.values():
                value.zero_()

    def replay(next_x: Any, next_y: Any) -> Any:
        x.copy_(next_x)
        y.copy_(next_y)
        graph.replay()
        return loss

    return replay


def measure(
    bench: Bench,
    cases: Iterable[Case] = CASES,
    dtypes: Iterable[str] = DTYPES,
    forms: Iterable[str] = FORMS,
) -> dict[str, Any]:
    """A row for each case and dtype."""
    dtypes, forms = tuple(dtypes), tuple(forms)
    found: dict[str, Any] = {}
    for case in cases:
        for dtype in dtypes:
            title = f"{case.name} {dtype}"
            try:
                found[title] = measured(bench, case, dtype, forms)
            except Exception as error:  # out of memory while all forms are there, say
                found[title] = unmeasured(case, dict.fromkeys(forms, reason(error)))
            forget(bench)
            row = found[title]
            told = [f"{f} {s['median'] * 1e6:.0f} µs" for f, s in row["seconds"].items()]
            bench.report(f"step, {title}: {', '.join(told) or 'nobody'}")
            for form, why in row["absent"].items():
                bench.report(f"  {form}: {why}")
    return found


def unmeasured(case: Case, absent: dict[str, str]) -> dict[str, Any]:
    return {"widths": case.widths, "batch": case.batch, "seconds": {}, "absent": absent}


def measured(bench: Bench, case: Case, dtype: str, forms: tuple[str, ...]) -> dict[str, Any]:
    """One case: each form made and walked three steps, what they say compared, then timed."""
    if bench.budget.spent():
        return unmeasured(case, dict.fromkeys(forms, f"no time left of {bench.budget.seconds} s"))
    trainings, paths, absent = {}, {}, dict(bench.absent)
    for form in forms:
        if package(form) in absent:
            continue
        device = bench.torch_device if package(form) == "torch" else DEVICE
        try:
            made = Training(form, case, dtype, device)
            paths[form] = walk(made, "adam")
            made.learn(RATE)
            trainings[form] = made
        except Exception as error:  # a compiler may fail in any way; capture may be refused
            absent[form] = reason(error)
    found = unmeasured(case, absent)
    if trainings:
        times = compare(
            {form: made.step for form, made in trainings.items()}, bench.pace, bench.timer
        )
        found |= summary(times, paths, dtype)
    return found


def summary(times: dict[str, list[float]], paths: dict[str, Any], dtype: str) -> dict[str, Any]:
    """Times; how far ours are ahead of the best form of PyTorch; who computes something else."""
    found: dict[str, Any] = {"seconds": {form: spread(t) for form, t in times.items()}}
    theirs = [form for form in times if package(form) == "torch"]
    found["best rival"] = rival = best(times, theirs)
    found["ahead"] = {f: ratio(times, rival, f) for f in OURS if rival and f in times}
    if OURS[0] in paths:
        apart = {form: distance(path, paths[OURS[0]]) for form, path in paths.items()}
        found["agreement"] = {form: asdict(d) for form, d in apart.items()}
        found["differing"] = {
            form: f"differs from {OURS[0]} by {d}, expected {SAME[dtype]} at most"
            for form, d in apart.items()
            if not d.within(SAME[dtype])
        }
    return found
