"""The training loop (solver.cpp)."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from irv2caffe.engine.fast import make_step
from irv2caffe.engine.model_files import load_model, save_model
from irv2caffe.engine.solver import snapshot
from irv2caffe.engine.solver.check import check_solver
from irv2caffe.engine.solver.display import (
    Lap,
    SmoothedLoss,
    debug_lines,
    flatten,
    mean_outputs,
    named_values,
)
from irv2caffe.engine.solver.ema import AVERAGED, AveragedWeights
from irv2caffe.engine.solver.log_lines import dump, number, output_lines
from irv2caffe.engine.solver.lr_policy import LearningRate
from irv2caffe.engine.solver.nets import SolverNets
from irv2caffe.engine.solver.snapshot import State, snapshot_path
from irv2caffe.engine.solver.updates import Update
from irv2caffe.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from irv2caffe.engine.net import Pass
    from irv2caffe.engine.options import EngineOptions
    from irv2caffe.engine.parallel.group import Group
    from irv2caffe.engine.solver.log_lines import Log
    from irv2caffe.engine.solver.nets import NetWithFeed
    from irv2caffe.engine.solver.signals import Signals

# Waits for data are shown from this share of the time since the last display, and these seconds.
_LEAST_WAIT_SHARE = 0.1
_LEAST_WAIT_S = 0.5


class Solver:
    """Trains a net as Caffe's Solver does, with its log lines and files.

    Attributes:
        net: that is trained.
        iteration: number of updates so far.
    """

    def __init__(
        self,
        param: Any,
        options: EngineOptions,
        group: Group,
        signals: Signals,
        log: Log,
        *,
        start: int = 0,
    ) -> None:
        """Checks the solver, sets up its nets, loads the weights it names.

        Args:
            param: a SolverParameter, upgraded.
            options: of the engine.
            group: the processes that train together.
            signals: that were asked for while training.
            log: of this process.
            start: the iteration of the snapshot that :meth:`restore` will read.

        Raises:
            Irv2CaffeError: what Caffe would refuse.
        """
        self.param = param
        self.options = options
        self.iteration = 0
        self._group = group
        self._signals = signals
        self._log = log
        self._stopped = False
        log.say("solver.cpp:45", f"Initializing solver from parameters: \n{dump(param)}")
        check_solver(param)
        self._learning_rate = LearningRate(param)
        if group.is_root and param.snapshot:
            snapshot.check_prefix(param)
        nets = SolverNets(param, options, group, log, start)
        self._train = nets.train()
        self.net = self._train.net
        self._tests = nets.tests(self.net)
        log.say("solver.cpp:57", "Solver scaffolding done.")
        num_steps = param.max_iter * param.iter_size
        self._step = make_step(self.net, options, group, steps=num_steps)
        self._update = Update(param, self.net.weights.learnable)
        self._average = AveragedWeights(self.net, options.ema) if options.ema else None
        self._smoothed = SmoothedLoss(param.average_loss)
        self._lap = Lap(0)
        self._waited_s = 0.0

    def restore(self, path: Path | None) -> None:
        """Continues from a ``.solverstate`` and the model that it names.

        Only the first process reads them; other machines need not have them, nor name them.

        Raises:
            UsageError: only other processes name one.
            MissingInputError: one of the files does not exist.
            FormatError: damaged, or of another net or solver type.
        """
        numbers = torch.zeros(2, dtype=torch.int64)
        if self._group.is_root:
            if path is None:
                raise UsageError("machine 0 has no -snapshot, but another has", "it is read there")
            state = snapshot.read_state(path, self._update.history)
            load_model(Path(state.learned_net), self.net)
            numbers = torch.tensor([state.iteration, state.current_step])
        self._group.broadcast([numbers, *self._update.history])
        self._log.say("sgd_solver.cpp:336", "SGDSolver: restoring history")
        self.iteration, self._learning_rate.current_step = numbers.tolist()
        if self._average is not None and path is not None:
            self._average.restore(path, self._log)

    def solve(self) -> None:
        """Trains to ``max_iter``, or until a signal asks to stop."""
        param = self.param
        self._log.say("solver.cpp:289", f"Solving {self.net.shapes.name}")
        self._log.say("solver.cpp:290", f"Learning Rate Policy: {param.lr_policy}")
        if self.options.stop_after:
            self._forward(self._train)
            self._log.say("net.cpp:544", f"Stopped after layer {self.options.stop_after}.")
            return
        self._group.broadcast(weight.tensor for weight in self.net.weights.learnable)
        self._train_to(param.max_iter)
        if param.snapshot_after_train and not self._is_due(param.snapshot):
            self._snapshot()
        if self._stopped:
            self._log.say("solver.cpp:295", "Optimization stopped early.")
            return
        if self._is_due(param.display):
            self._smoothed.add(self._forward(self._train).loss)
            loss = number(self._smoothed.value())
            self._log.say("solver.cpp:327", f"Iteration {self.iteration}, loss = {loss}")
        if self._is_due(param.test_interval):
            self._test_all()
        self._log.say("solver.cpp:332", "Optimization Done.")

    def _is_due(self, interval: int) -> bool:
        return bool(interval) and self.iteration % interval == 0

    def _train_to(self, last: int) -> None:
        """Solver::Step."""
        param = self.param
        self._lap = Lap(self.iteration)
        while self.iteration < last:
            if self._is_due(param.test_interval) and (self.iteration or param.test_initialization):
                self._test_all()
                if self._stopped:
                    return
            display = self._is_due(param.display)
            result = self._forward_backward()
            if display:
                self._show(result)
            self._apply_update(display=display)
            self.iteration += 1
            action = self._requested_by_any()
            if self._is_due(param.snapshot) or action == "snapshot":
                self._snapshot()
            if action == "stop":
                self._stopped = True
                return

    def _forward_backward(self) -> Pass:
        """All micro-batches of an iteration; returns the last one."""
        weights = self.net.weights.learnable
        self._update.clear_gradients()
        total: Tensor | None = None
        for index in range(self.param.iter_size):
            given = self._train.feed.next()
            if index == self.param.iter_size - 1 and self._step.runs_hooks:
                self._group.overlap(weights)
            result = self._step(given)
            total = result.loss.clone() if total is None else total + result.loss
        assert total is not None
        self._group.average_gradients(weights)
        self._smoothed.add(total / self.param.iter_size)
        return result

    def _forward(self, part: NetWithFeed) -> Pass:
        """A forward pass without gradients."""
        with torch.no_grad():
            return part.net.forward(part.feed.next())

    def _show(self, result: Pass) -> None:
        """The lines of a display."""
        rate, seconds = self._lap.next(self.iteration)
        self._log.say(
            "solver.cpp:239",
            f"Iteration {self.iteration} ({number(rate)} iter/s, {number(seconds)}s/"
            f"{self.param.display} iters), loss = {number(self._smoothed.value())}",
        )
        values = flatten(result.outputs, self.net.device).tolist()
        for line in output_lines("Train", named_values(self.net, result.outputs, values)):
            self._log.say("solver.cpp:258", line)
        waited_s = self._train.feed.waited_s - self._waited_s
        self._waited_s += waited_s
        if waited_s > max(_LEAST_WAIT_S, _LEAST_WAIT_SHARE * seconds):
            share = f"{waited_s:.1f} s of {seconds:.1f} s"
            self._log.say("blocking_queue.cpp:49", f"Waiting for data: {share}")

    def _apply_update(self, *, display: bool) -> None:
        """SGDSolver::ApplyUpdate."""
        step = self._learning_rate.current_step
        rate = self._learning_rate.rate(self.iteration)
        policy = self._learning_rate
        if self.param.lr_policy == "multistep" and policy.current_step != step:
            self._log.say(
                "sgd_solver.cpp:50",
                f"MultiStep Status: Iteration {self.iteration}, step = {policy.current_step}",
            )
        if display:
            if self.param.debug_info:
                for line in debug_lines(self.net):
                    self._log.say("net.cpp:605", line)
            self._log.say("sgd_solver.cpp:112", f"Iteration {self.iteration}, lr = {number(rate)}")
        clipped = self._update.apply(rate, self.iteration)
        if self._average is not None:
            self._average.update(self.iteration)
        if clipped is not None:
            self._log.say(
                "sgd_solver.cpp:99",
                "Gradient clipping: scaling down gradients (L2 norm "
                f"{number(clipped.norm)} > {number(self.param.clip_gradients)}) by scale factor "
                f"{number(clipped.factor)}",
            )

    def _requested_by_any(self) -> str:
        """The action that a signal to any process asks for."""
        action = self._signals.requested()
        if not self._group.agree(action != "none"):
            return "none"
        return "stop" if self._group.agree(action == "stop") else "snapshot"

    def _test_all(self) -> None:
        """Tests in the first process, while the others wait."""
        averages = self._average
        with averages.in_use() if averages is not None else nullcontext():
            for index, test in enumerate(self._tests):
                self._test(index, test)
                if self._stopped:
                    break
        self._group.wait_for_root()
        self._stopped = self._group.agree(self._stopped)

    def _test(self, index: int, test: NetWithFeed) -> None:
        """Solver::Test."""
        count = self.param.test_iter[index]
        self._log.say("solver.cpp:347", f"Iteration {self.iteration}, Testing net (#{index})")
        scores = mean_outputs(test.net, test.feed.next, count, self._is_test_interrupted)
        if scores is None:
            self._log.say("solver.cpp:395", "Test interrupted.")
            return
        if self.param.test_compute_loss:
            self._log.say("solver.cpp:401", f"Test loss: {number(scores.loss)}")
        for line in output_lines("Test", scores.outputs):
            self._log.say("solver.cpp:414", line)

    def _is_test_interrupted(self) -> bool:
        """Acts on signals between the batches of a test."""
        while (action := self._signals.requested()) != "none":
            if action == "snapshot":
                self._snapshot()
            else:
                self._stopped = True
        return self._stopped

    def _snapshot(self) -> None:
        """Writes both files of a snapshot, in the first process."""
        if not self._group.is_root:
            return
        model = snapshot_path(self.param, self.iteration, ".caffemodel")
        self._log.say("solver.cpp:464", f"Snapshotting to binary proto file {model}")
        averages = self._average
        with averages.set_aside() if averages is not None else nullcontext():
            save_model(Path(model), self.net)
        if averages is not None:
            averages.save(Path(snapshot_path(self.param, self.iteration, AVERAGED)))
        path = snapshot_path(self.param, self.iteration, ".solverstate")
        self._log.say(
            "sgd_solver.cpp:284", f"Snapshotting solver state to binary proto file {path}"
        )
        state = State(self.iteration, model, self._learning_rate.current_step)
        snapshot.write_state(Path(path), state, self._update.history)

    def close(self) -> None:
        """Closes the feeds."""
        for part in (self._train, *self._tests):
            part.feed.close()
