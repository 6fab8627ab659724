"""A training run without its display: what a configuration means, and a state to go on from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinygrad_bn import nn, optim
from tinygrad_bn.backend import backend_for
from tinygrad_bn.cli.options import Config
from tinygrad_bn.cli.run_folder import Record
from tinygrad_bn.data import DataLoader, Subset, TensorDataset, datasets, random_split
from tinygrad_bn.data.datasets import Split
from tinygrad_bn.errors import ArgumentError
from tinygrad_bn.philox import Generator, generator_on, manual_seed
from tinygrad_bn.trainer import Step, evaluate, fit

SETS: dict[str, Callable[[], Split]] = {
    "mnist": datasets.mnist,
    "fashion-mnist": datasets.fashion_mnist,
    "digits": datasets.digits,
}
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}
OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {
    "sgd": lambda params, lr: optim.SGD(params, lr, momentum=0.9),
    "adam": optim.Adam,
    "adamw": optim.AdamW,
    "nadam": optim.NAdam,
    "rmsprop": optim.RMSprop,
}
NORMS: dict[str, Callable[[int], list[nn.Module]]] = {
    "batch": lambda size: [nn.BatchNorm1d(size)],
    "layer": lambda size: [nn.LayerNorm(size)],
    "none": lambda size: [],
}
EVALUATION_BATCH = 1000


class Session:
    """Data, model and optimizer of a run, and what has come of them.

    Attributes
    ----------
    history : the records of all complete epochs.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        backend = backend_for(config.device)
        split = SETS[config.data]()
        manual_seed(config.seed)
        self.generators = {"cpu": generator_on(backend_for("cpu")), "device": generator_on(backend)}
        self.parts = parts(split, config)
        inputs = split.train.tensors[0].shape[1]
        self.model = network(config, inputs, len(split.classes)).to(device=backend.device)
        self.loader = DataLoader(self.parts["train"], config.batch_size, shuffle=True)
        self.optimizer = OPTIMIZERS[config.optimizer](
            optim.param_groups(self.model, config.weight_decay), lr=config.lr
        )
        self.scheduler = (
            optim.lr_scheduler.CosineAnnealingLR(self.optimizer, config.epochs)
            if config.schedule == "cosine"
            else None
        )
        self.history: list[Record] = []

    @property
    def epoch(self) -> int:
        """How many epochs are complete."""
        return len(self.history)

    def state(self) -> dict[str, Any]:
        """All that changes as the run goes on."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict() if self.scheduler else None,
            "generators": {name: g.get_state() for name, g in self.generators.items()},
            "history": self.history,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler:
            self.scheduler.load_state_dict(state["scheduler"])
        for name, generator in self.generators.items():
            generator.set_state(state["generators"][name])
        self.history = state["history"]

    def train(
        self, on_step: Callable[[Step], object], on_epoch: Callable[[Record], object]
    ) -> None:
        """Go through the epochs that remain; who keeps a record adds it to `history`."""
        fit(
            self.model,
            self.loader,
            nn.functional.cross_entropy,
            self.optimizer,
            self.config.epochs,
            start=self.epoch,
            scheduler=self.scheduler,
            validate=self.validate,
            on_step=on_step,
            on_epoch=on_epoch,
        )

    def validate(self, model: nn.Module) -> Record:
        """Loss and accuracy on the part held out and on the test part."""
        found: Record = {}
        for part in ("validation", "test"):
            loader = DataLoader(self.parts[part], EVALUATION_BATCH)
            measured = evaluate(model, loader, nn.functional.cross_entropy)
            found |= {f"{part}_{name}": value for name, value in measured.items()}
        return found

    def best(self) -> Record:
        """The record with the best validation accuracy, the first of them."""
        return max(self.history, key=lambda record: record["validation_accuracy"])


def parts(split: Split, config: Config) -> dict[str, TensorDataset | Subset]:
    """The training part less what is held out of it, that, and the test part, on the device.

    What is held out depends on nothing but the seed.

    Raises
    ------
    ArgumentError
        If one of them would be empty.
    """
    train, test = (
        TensorDataset(*(x.to(device=config.device) for x in part.tensors))
        for part in (split.train, split.test)
    )
    held_out = round(len(train) * config.validation)
    if not 0 < held_out < len(train):
        raise ArgumentError(
            f"expected a validation share that leaves samples on both sides of {len(train)}, "
            f"got {config.validation}"
        )
    kept, validation = random_split(
        train, [len(train) - held_out, held_out], Generator().manual_seed(config.seed)
    )
    return {"train": kept, "validation": validation, "test": test}


def network(config: Config, inputs: int, classes: int) -> nn.Sequential:
    """Linear, norm, activation and dropout for each hidden layer, and a linear output."""
    layers: list[nn.Module] = []
    for size in config.hidden:
        # the norm has a bias of its own
        layers.append(nn.Linear(inputs, size, bias=config.norm == "none"))
        layers += NORMS[config.norm](size)
        layers.append(ACTIVATIONS[config.activation]())
        layers += [nn.Dropout(config.dropout)] if config.dropout else []
        inputs = size
    return nn.Sequential(*layers, nn.Linear(inputs, classes))
