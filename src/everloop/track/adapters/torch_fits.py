"""PyTorch logs what its optimisers do: their settings, the learning rate, the loss.

A loop in PyTorch is the user's own code, with no begin and no end that could be seen. So this logs
only into an active run, and the model is the user's to log. Every tenth step is logged: reading a
loss waits for the graphics card.
"""

from __future__ import annotations

import functools
import weakref
from types import ModuleType
from typing import Any, Final

from everloop.track.active import active_run
from everloop.track.adapters.autolog import Autologger
from everloop.track.adapters.patches import Patches
from everloop.track.handle import RunHandle

EVERY: Final = 10


class _Progress:
    def __init__(self, name: str, run: str) -> None:
        self.name = name
        self.run = run
        self.steps = 0


class TorchLog:
    """Hears of every step of every optimiser, and of every loss that is differentiated."""

    def __init__(self, autologger: Autologger) -> None:
        self._autologger = autologger
        self._known: weakref.WeakKeyDictionary[Any, _Progress] = weakref.WeakKeyDictionary()
        self._names: dict[str, int] = {}
        self._loss: Any = None

    def differentiated(self, tensor: Any) -> None:
        """Note a loss; its value is read only when it is logged."""
        if tensor.numel() == 1:
            self._loss = tensor.detach()

    def stepped(self, optimizer: Any) -> None:
        """Log a step of an optimiser, the first and then every tenth."""
        run = active_run()
        if not isinstance(run, RunHandle):
            return
        progress = self._known.get(optimizer)
        if progress is None or progress.run != run.id:
            progress = self._known[optimizer] = self._begin(optimizer, run)
        place, progress.steps = progress.steps, progress.steps + 1
        if place % EVERY:
            return
        for number, group in enumerate(optimizer.param_groups):
            part = f"_{number}" if number else ""
            run.log_metric(f"{progress.name}learning_rate{part}", float(group["lr"]), place)
        loss, self._loss = self._loss, None
        if loss is not None:
            run.log_metric(f"{progress.name}loss", float(loss), place)

    def _begin(self, optimizer: Any, run: RunHandle) -> _Progress:
        count = self._names[run.id] = self._names.get(run.id, 0) + 1
        name = "" if count == 1 else f"optimizer{count}."
        weights = sum(part.numel() for group in optimizer.param_groups for part in group["params"])
        settings = {
            f"{name}optimizer.{key}": str(value)[:500] for key, value in optimizer.defaults.items()
        }
        run.log_params({f"{name}optimizer": type(optimizer).__name__, **settings})
        run.set_tags({f"{name}parameters": str(weights)})
        return _Progress(name, run.id)


def patch(module: ModuleType, patches: Patches, autologger: Autologger) -> None:
    """Replace ``Tensor.backward`` and ``Optimizer.step`` as each optimiser calls it."""
    log = TorchLog(autologger)
    tensor: Any = module.Tensor
    backward = tensor.backward

    @functools.wraps(backward)
    def logged_backward(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = backward(self, *args, **kwargs)
        if autologger.is_on:
            autologger.quiet.attempt(log.differentiated, self)
        return result

    patches.put(tensor, "backward", logged_backward)
    optimizer: Any = module.optim.Optimizer
    initialise = optimizer.__init__

    @functools.wraps(initialise)
    def logged_init(self: Any, *args: Any, **kwargs: Any) -> Any:
        initialise(self, *args, **kwargs)
        autologger.quiet.attempt(_hook, self, log, autologger)

    patches.put(optimizer, "__init__", logged_init)


def _hook(optimizer: Any, log: TorchLog, autologger: Autologger) -> None:
    """Let an optimiser tell of its steps, by the hook that PyTorch has for it since 2.0."""

    def after(stepped: Any, args: Any, kwargs: Any) -> None:
        del args, kwargs
        if autologger.is_on:
            autologger.quiet.attempt(log.stepped, stepped)

    optimizer.register_step_post_hook(after)
