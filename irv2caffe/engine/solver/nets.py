"""Sets up the nets of a solver with what they read."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from irv2caffe.engine.data.feed import Feed, open_feed
from irv2caffe.engine.data.order import Share
from irv2caffe.engine.model_files import load_model
from irv2caffe.engine.net import Net
from irv2caffe.engine.solver.log_lines import dump
from irv2caffe.engine.solver.net_sources import NetSource, test_sources, train_source
from irv2caffe.shapes.phases import select

if TYPE_CHECKING:
    from irv2caffe.engine.options import EngineOptions
    from irv2caffe.engine.parallel.group import Group
    from irv2caffe.engine.solver.log_lines import Log
    from irv2caffe.shapes.phases import Phase


@dataclass(frozen=True)
class NetWithFeed:
    """A net and what it reads."""

    net: Net
    feed: Feed


class SolverNets:
    """The nets of a solver, in the order in which Caffe sets them up."""

    def __init__(
        self, param: Any, options: EngineOptions, group: Group, log: Log, start: int
    ) -> None:
        """Seeds the random numbers.

        Args:
            param: a SolverParameter.
            options: of the engine.
            group: the processes that train together.
            log: of this process.
            start: the first iteration; one that continues gets other random numbers.
        """
        self._param = param
        self._options = options
        self._group = group
        self._log = log
        given = param.random_seed if param.random_seed >= 0 else secrets.randbits(32)
        seed = torch.tensor([given + start])
        group.broadcast([seed])
        self._seed = int(seed.item())
        torch.manual_seed(self._seed + group.rank)

    def train(self) -> NetWithFeed:
        """The net to be trained; it reads the records of this process only.

        Raises:
            Irv2CaffeError: what Caffe would refuse.
        """
        source = train_source(self._param)
        self._log.say("solver.cpp:102", f"Creating training net {source.said}")
        return self._set_up(source, "TRAIN")

    def tests(self, trained: Net) -> list[NetWithFeed]:
        """The test nets, which share the weights of the trained one; none but in the first process.

        Raises:
            Irv2CaffeError: what Caffe would refuse.
        """
        sources = test_sources(self._param)
        if not self._group.is_root:
            return []
        tests = []
        for index, source in enumerate(sources):
            self._log.say(
                "solver.cpp:190", f"Creating test net (#{index}) specified by {source.said}"
            )
            tests.append(self._set_up(source, "TEST", trained))
        return tests

    def _set_up(self, source: NetSource, phase: Phase, trained: Net | None = None) -> NetWithFeed:
        device = self._group.device
        chosen = dump(select(source.proto, phase))
        self._log.say("net.cpp:53", f"Initializing net from parameters: \n{chosen}")
        feed = open_feed(
            source.proto,
            phase,
            self._options,
            device=device,
            share=Share(self._group.rank, self._group.world),
            seed=self._seed,
            info=self._log.say,
        )
        options = self._options if phase == "TRAIN" else replace(self._options, stop_after="")
        net = Net(
            source.proto,
            phase,
            options,
            device=device,
            data_shapes=feed.record_shapes,
            trained=trained,
        )
        for name in net.outputs:
            self._log.say("net.cpp:244", f"This network produces output {name}")
        self._log.say("net.cpp:257", "Network initialization done.")
        for model in self._param.weights:
            self._log.say("solver.cpp:72", f"Finetuning from {model}")
            load_model(Path(model), net)
        return NetWithFeed(net, feed)
