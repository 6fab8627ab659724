"""Compiled steps on a GPU: streams and threads, and what is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

import tinygrad_bn as tg
from tests.capture.on_gpu import Learner, batches, graphed
from tests.two_backends import only_stand_in
from tinygrad_bn import nn, optim
from tinygrad_bn.backend import backend_for
from tinygrad_bn.errors import BackendError, CaptureError, OutOfMemoryError

pytestmark = pytest.mark.cuda


@pytest.fixture(autouse=True)
def device() -> str:
    """Everything here is on the first GPU, which makes it the default device."""
    return "cuda"


class TestStreams:
    @only_stand_in
    def test_another_stream_is_current(self) -> None:
        import cupy

        eager, compiled = Learner(False), Learner(True)
        side = cupy.cuda.Stream(non_blocking=True)
        losses: list[list[float]] = [[], []]
        for learner, found in zip((eager, compiled), losses, strict=True):
            tg.manual_seed(5)
            for number, (x, t) in enumerate(batches(4)):
                if number % 2:
                    side.wait_event(cupy.cuda.get_current_stream().record())
                    with side:
                        found.append(learner.run(x, t).item())
                    cupy.cuda.get_current_stream().wait_event(side.record())
                else:
                    found.append(learner.run(x, t).item())
        assert losses[0] == losses[1]
        assert eager.state() == compiled.state()

    @only_stand_in
    def test_graphs_wait_for_each_other_across_streams(self, monkeypatch: Any) -> None:
        """They share a workspace: on another stream than last time, a graph waits for the last."""
        import cupy

        double = tg.compile(lambda x: x * 2)
        x = tg.ones(3)
        double(x)
        double(x)
        place = graphed(double)._graphs._place
        waited: list[Any] = []
        stream = type(cupy.cuda.Stream.null)
        original = stream.wait_event

        def wait_event(self: Any, event: Any) -> None:
            waited.append((self, event))
            original(self, event)

        monkeypatch.setattr(stream, "wait_event", wait_event)
        side = cupy.cuda.Stream(non_blocking=True)
        double(x)
        assert waited == []
        with side:
            double(x)
            double(x)
        double(x)
        assert waited == [(side, place.done), (cupy.cuda.Stream.null, place.done)]

    @only_stand_in
    def test_a_stream_that_captures_is_refused(self) -> None:
        import cupy

        double = tg.compile(lambda x: x * 2)
        x = tg.ones(3)
        double(x)
        side = cupy.cuda.Stream(non_blocking=True)
        with side:
            side.begin_capture()
            with pytest.raises(BackendError, match="a stream that does not capture"):
                double(x)
            side.end_capture()
        assert double(x).tolist() == [2.0] * 3

    def test_who_waits_for_the_gpu_waits_for_a_capture(self) -> None:
        """Which that would end otherwise, in whichever thread it is."""
        graphs: Any = backend_for("cuda").graphs()
        x, begun, errors = tg.ones(3).array, threading.Event(), []

        def wait() -> None:
            begun.wait()
            try:
                tg.cuda.synchronize()
            except BaseException as error:
                errors.append(error)

        def work() -> None:
            begun.set()
            thread.join(0.2)
            _ = x + 1

        thread = threading.Thread(target=wait)
        thread.start()
        with graphs.working():
            graph = graphs.captured(work)
        thread.join()
        assert not errors
        with graphs.replaying():
            graphs.launch(graph)

    def test_threads_take_turns(self) -> None:
        data = batches(4)
        trained = [Learner(True) for _ in range(3)]
        for learner in trained:
            learner.model[3].p = 0.0  # masks would come in an order that is up to the threads
        errors: list[BaseException] = []

        def work(learner: Learner) -> None:
            try:
                for x, t in data:
                    learner.run(x, t)
                    tg.cuda.synchronize()  # which would end the capture of another thread
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(learner,)) for learner in trained]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        assert trained[0].state() == trained[1].state() == trained[2].state()


class TestRefusals:
    def test_arguments_on_two_devices(self) -> None:
        x = tg.ones(3)
        with pytest.raises(CaptureError, match="got arguments on cpu and cuda:0"):
            tg.compile(lambda x, y: x)(x, x.cpu())

    def test_tensors_on_another_device(self) -> None:
        other = tg.ones(3).cpu()
        x = tg.ones(3)
        steps: list[Callable[[tg.Tensor], Any]] = [
            lambda x: x * other.to("cuda"),  # here
            lambda x: x * other.sum().item(),  # here
            lambda x: x + other.numpy()[0],  # here
        ]
        for step in steps:
            with pytest.raises(CaptureError, match="move all to one device") as caught:
                tg.compile(step)(x)
            assert line_of(caught.value).endswith("# here")
        with pytest.raises(BackendError, match="on cuda:0, got one on cpu"):
            tg.compile(lambda x: x * other)(x)
        assert tg.compile(lambda x: x * other.shape[0])(x).tolist() == [3.0] * 3  # not read

    def test_work_on_another_device_beside(self) -> None:
        model, other = nn.Linear(3, 1), nn.Linear(3, 1).to("cpu")
        optimizer = optim.SGD([*model.parameters()], lr=0.1)
        beside = optim.SGD([*other.parameters()], lr=0.1)
        other(tg.ones(2, 3, device="cpu")).sum().backward()
        kept = [p.grad for p in other.parameters()]

        def train(x: tg.Tensor, what: str) -> Any:
            optimizer.zero_grad()
            if what == "clears":
                beside.zero_grad()
            if what == "steps":
                beside.step()
            loss = model(x).sum()
            loss.backward()
            optimizer.step()
            return tg.tensor(3.0, device="cpu") if what == "returns" else loss

        x, step = tg.ones(2, 3), tg.compile(train)
        before = [p.tolist() for p in (*model.parameters(), *other.parameters())]
        for what in ("clears", "steps", "returns"):
            with pytest.raises(CaptureError, match="on cuda:0"):
                step(x, what)
        assert [p.tolist() for p in (*model.parameters(), *other.parameters())] == before
        assert all(p.grad is grad for p, grad in zip(other.parameters(), kept, strict=True))
        eager = [train(x, "").item() for _ in range(1)]
        model.load_state_dict({"weight": tg.tensor(before[0]), "bias": tg.tensor(before[1])})
        assert [step(x, "").item()] == eager  # what is only there does not matter

    def test_arguments_that_the_step_would_move(self) -> None:
        model = nn.Linear(3, 2)
        with tg.no_grad(), pytest.raises(CaptureError, match="reads values") as caught:
            tg.compile(lambda x: model(x.to("cuda")))(tg.ones(4, 3).cpu())  # here
        assert line_of(caught.value).endswith("# here")

    def test_values_that_python_reads(self) -> None:
        for read in (
            lambda x: x.sum().item(),  # here
            lambda x: x[x > 0],  # here
            lambda x: x.cpu().numpy(),  # here
        ):
            with pytest.raises(CaptureError) as caught:
                tg.compile(read)(tg.ones(3))
            assert line_of(caught.value).endswith("# here")

    @only_stand_in
    def test_memory_that_is_lacking_is_told_as_such(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import cupy

        def malloc(self: Any, size: int) -> Any:
            raise MemoryError(f"Out of memory allocating {size} bytes")

        learner = Learner(True)
        before = learner.state()
        with monkeypatch.context() as lacking:
            lacking.setattr(cupy.cuda.MemoryPool, "malloc", malloc)
            with pytest.raises(OutOfMemoryError, match="more memory on cuda:0"):
                learner.run(*batches(1)[0])
        assert learner.state() == before
        learner.run(*batches(1)[0])
        assert learner.state() != before

    @only_stand_in
    @pytest.mark.parametrize("what", ["cuBLAS", "wait", "upload"])
    def test_what_no_graph_holds_is_named_and_taken_back(
        self, what: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Operations of CuPy's that a capture refuses, in the place of one of ours."""
        import cupy

        learner = Learner(False)
        backend: Any = backend_for("cuda")
        ordinary = backend.xp.tanh

        def tanh(x: Any) -> Any:
            if what == "cuBLAS":
                cupy.matmul(x, x.T)
            elif what == "wait":
                cupy.cuda.get_current_stream().synchronize()
            else:
                x.sum().item()
            return ordinary(x)

        monkeypatch.setattr(backend.xp, "tanh", tanh)
        before = learner.state()

        @tg.compile
        def step(x: tg.Tensor, t: tg.Tensor) -> tg.Tensor:
            loss = learner.step(x, t)
            bias = learner.model[0].bias.detach()
            turned = bias.reshape(1, 7).tanh()  # here
            bias.copy_(turned[0])
            return loss

        with pytest.raises(CaptureError, match="CUDA graphs can hold, got tanh") as caught:
            step(*batches(1)[0])
        assert line_of(caught.value).endswith("# here")
        monkeypatch.setattr(backend.xp, "tanh", ordinary)
        assert learner.state() == before
        assert all(p.grad is None for p in learner.model.parameters())
        step(*batches(1)[0])  # nothing is left of the capture that failed
        step(*batches(1)[0])

    @only_stand_in
    def test_a_capture_that_fails_without_a_word(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """To ask a stream whether it has done ends a capture, and nobody hears of it before."""
        import cupy

        backend: Any = backend_for("cuda")
        ordinary = backend.xp.tanh

        def tanh(x: Any) -> Any:
            _ = cupy.cuda.get_current_stream().done
            return ordinary(x)

        monkeypatch.setattr(backend.xp, "tanh", tanh)
        with pytest.raises(CaptureError, match=r"from mul to exp: .*Invalidated") as caught:
            tg.compile(lambda x: (x * 2).tanh().exp())(tg.ones(3))  # here
        assert line_of(caught.value).endswith("# here")


def line_of(error: BaseException) -> str:
    """The source line that an error names."""
    path, line = str(error).rpartition('File "')[2].split('", line ')
    with open(path, encoding="utf-8") as source:
        return source.readlines()[int(line.partition(",")[0]) - 1].rstrip()
