"""What can be said on the command line, and the configuration of a training run."""

from __future__ import annotations

import json
import math
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

from tinygrad_bn.errors import ArgumentError, DataError

DATA = ("mnist", "fashion-mnist", "digits")
NORMS = ("batch", "layer", "none")
ACTIVATIONS = ("relu", "leaky_relu", "elu", "gelu", "silu", "mish", "tanh", "sigmoid")
LEARNING_RATES = {"sgd": 0.1, "adam": 2e-3, "adamw": 2e-3, "nadam": 2e-3, "rmsprop": 1e-3}
"""The optimizers, each with the learning rate that it starts at if nobody names one."""
SCHEDULES = ("cosine", "constant")


@dataclass(frozen=True, slots=True)
class Config:
    """All that determines the weights that a training run reaches, and its defaults.

    ``lr`` is the optimizer's own default if None. A share ``validation`` of the training part is
    held out to choose the best epoch by, so that the test part has no say in it.
    """

    data: str = "mnist"
    hidden: tuple[int, ...] = (256, 256)
    norm: str = "batch"
    activation: str = "relu"
    dropout: float = 0.0
    optimizer: str = "adam"
    lr: float | None = None
    schedule: str = "cosine"
    weight_decay: float = 0.0
    batch_size: int = 128
    epochs: int = 10
    validation: float = 0.1
    device: str = "cpu"
    seed: int = 0

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, source: object) -> Self:
        """The configuration that `to_json` wrote to ``source``.

        Raises
        ------
        DataError
            If the text is something else.
        """
        try:
            values = json.loads(text)
            known = cls(**{**values, "hidden": tuple(values["hidden"])})
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"expected a run's configuration in {source}, got {error}") from error
        if missing := sorted({option.name for option in fields(cls)} - set(values)):
            raise DataError(f"expected a run's configuration in {source}, got no {missing[0]!r}")
        return known

    def with_learning_rate(self) -> Self:
        """The same with the optimizer's default where no learning rate was named."""
        return self if self.lr else replace(self, lr=LEARNING_RATES[self.optimizer])

    def require(self, given: Mapping[str, Any]) -> None:
        """Refuse options that are not those of this run.

        Raises
        ------
        ArgumentError
            Naming each of them, with what it was.
        """
        if wrong := [name for name in given if given[name] != getattr(self, name)]:
            was = ", ".join(f"--{option(name)} {shown(getattr(self, name))}" for name in wrong)
            got = ", ".join(shown(given[name]) for name in wrong)
            raise ArgumentError(f"expected {was} as when the run began, got {got}; leave them out")


def option(name: str) -> str:
    return name.replace("_", "-")


def shown(value: Any) -> str:
    """A value as it is written on the command line."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else f"{value}"


def build_parser() -> ArgumentParser:
    """The whole command line."""
    parser = ArgumentParser("tinygrad-bn", description="Train and inspect small networks.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for add in (add_demo, add_train, add_info):
        add(commands).add_argument(
            "--debug", action="store_true", help="show the traceback of an error"
        )
    return parser


def add_demo(commands: Any) -> ArgumentParser:
    """``demo``, whose defaults are those of `figure_one.Settings`."""
    text = "what batch normalization does to a deep sigmoid network, as a table and a figure"
    parser: ArgumentParser = commands.add_parser("demo", help=text, description=text)
    parser.add_argument("--out", required=True, metavar="FOLDER", help="where the figure goes")
    parser.add_argument(
        "--seeds", type=whole(1), default=3, metavar="N", help="networks of a kind (default 3)"
    )
    parser.add_argument(
        "--steps", type=whole(1), default=500, metavar="N", help="of each (default 500)"
    )
    parser.add_argument(
        "--lr",
        type=number(0, open_low=True),
        default=1.0,
        metavar="X",
        help="learning rate (default 1)",
    )
    return parser


def add_train(commands: Any) -> ArgumentParser:
    """``train``: one option for each field of `Config`, absent from the result if not given."""
    text = "train a multilayer perceptron on images"
    parser: ArgumentParser = commands.add_parser(
        "train",
        help=text,
        description=text,
        argument_default=SUPPRESS,
        usage="%(prog)s (--out FOLDER | --resume FOLDER) [option ...]",
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", metavar="FOLDER", help="a new folder for the run")
    where.add_argument("--resume", metavar="FOLDER", help="go on with the run in this folder")

    def add(name: str, help: str, **kind: Any) -> None:
        default = getattr(Config(), name)
        note = "" if default is None else f" (default {shown(default)})"
        if "choices" not in kind:
            kind.setdefault("metavar", "X")
        parser.add_argument(f"--{option(name)}", help=help + note, **kind)

    add("data", "what to learn", choices=DATA)
    add("hidden", "sizes of the hidden layers", type=sizes, metavar="N,N")
    add("norm", "normalization between linear layers and activations", choices=NORMS)
    add("activation", "of the hidden layers", choices=ACTIVATIONS)
    add("dropout", "probability to drop a hidden unit", type=number(0, 1))
    add("optimizer", "sgd has momentum 0.9", choices=tuple(LEARNING_RATES))
    rates = ", ".join(f"{name} {rate:g}" for name, rate in LEARNING_RATES.items())
    add("lr", f"learning rate (default: {rates})", type=number(0, open_low=True))
    add("schedule", "of the learning rate over the epochs", choices=SCHEDULES)
    add("weight_decay", "spares norms and biases", type=number(0))
    add("batch_size", "samples a step", type=whole(1))
    add("epochs", "passes over the training data", type=whole(1))
    add("validation", "share of the training data held out", type=number(0, 1, open_low=True))
    add("device", "cpu, cuda or cuda:N")
    add("seed", "of weights, batches and dropout", type=whole(0))
    parser.set_defaults(debug=False)
    return parser


def add_info(commands: Any) -> ArgumentParser:
    """``info``."""
    text = "versions, backends, devices, BLAS and data sets"
    parser: ArgumentParser = commands.add_parser("info", help=text, description=text)
    parser.add_argument("--json", action="store_true", help="as JSON")
    return parser


def whole(low: int) -> Callable[[str], int]:
    """A whole number of at least ``low``."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if value < low:
            raise ArgumentTypeError(f"expected a whole number of at least {low}, got {text!r}")
        return value

    return parse


def number(low: float, high: float = math.inf, *, open_low: bool = False) -> Callable[[str], float]:
    """A number in [low, high), or (low, high)."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (low < value < high or (value == low and not open_low)):
            bracket = "(" if open_low else "["
            raise ArgumentTypeError(
                f"expected a number in {bracket}{low:g}, {high:g}), got {text!r}"
            )
        return value

    return parse


def sizes(text: str) -> tuple[int, ...]:
    """Whole numbers of at least 1, with commas between them."""
    return tuple(whole(1)(part) for part in text.split(","))
