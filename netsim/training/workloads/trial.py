"""A trial of a user's workload before a run: a gradient must depend on the parameters and the mini-batch only.

Workers compute gradients on copies of one model, in any order and thread, and a real rank computes in another process.
A simulation and a real run agree only if nothing else affects a gradient. The trial therefore computes the first
gradient three times: first; again after the gradient of another worker; and on a second copy that has already computed
the other worker's gradient. All three must agree bit for bit.

Equal bits are not sufficient. A layer that is skipped with a probability of 0.1 usually gives the same bits twice, but
it advances a global random generator. A counter with an effect after a hundred steps gives the same bits, but it
changes an attribute of its module. The trial also checks generators and attributes.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from netsim._util.errors import UsageError
from netsim._util.system import one_thread_each
from netsim.training.workloads.parameters import check_labels, trainable
from netsim.training.workloads.replica import Replica
from netsim.training.workloads.task import DataParallelTask
from netsim.training.workloads.user_code import (
    blaming,
    generator_digests,
    generators_kept,
    hashed,
    seeded,
    state_of,
)

UNLIKELY_SEED = 3_141_592_653
"""A seed that user code does not set itself; a forward that sets the same seed would go unnoticed."""
EVERY_CALL = "a gradient must depend on parameters and mini-batch alone"


def try_out(task: DataParallelTask) -> None:
    """Try a task, and raise UsageError if a run would fail or could not be repeated.

    The trial takes one forward pass, five gradients, and the evaluation of at most four chunks of samples.
    """
    with one_thread_each(), generators_kept():
        _check_scores(task)
        with seeded(UNLIKELY_SEED):  # a forward that seeds a generator changes its state, too
            _check_gradient(task)
        task.rehearse_evaluation()


def _check_scores(task: DataParallelTask) -> None:
    """Raise UsageError unless there is a score for each label, and scores depend on the copy's parameters only."""
    workload, replica = task.workload, task.replica()
    replica.hold(task.initial_parameters().values)
    if workload.loss is not None:
        scores = replica.loss(*task.samples(0, 0))
    else:
        scores = replica.scores(*task.samples(0, 0))
        for kind, samples in (("training", workload.training), ("test", workload.test)):
            check_labels(workload.name, kind, samples.labels, scores.shape[1])
    if name := replica.misses():
        raise _refused(task, f"its forward adds or replaces parameter {name!r}, which netsim then does not train")
    names, originals = zip(*trainable(workload.model), strict=True)
    with blaming(workload.name, "its backward"):
        slopes: tuple[torch.Tensor | None, ...] = ()
        if scores.requires_grad:
            slopes = torch.autograd.grad(scores.sum(), originals, allow_unused=True)
    if used := [name for name, slope in zip(names, slopes, strict=False) if slope is not None]:
        why = f"its forward uses parameter {used[0]!r} of the model that netsim has copied"
        raise _refused(task, f"{why}, as a lambda bound to that model does")


def parts(task: DataParallelTask) -> dict[str, str]:
    """Return digests of the parts of a workload, and of its first gradient, by name."""
    with one_thread_each(), generators_kept():
        gradient = task.gradient_on(task.replica(), task.initial_parameters(), 0, 0)
    return task.workload.parts_sha256() | {"first gradient": hashed(gradient.values)}


def _check_gradient(task: DataParallelTask) -> None:
    start, another = task.initial_parameters(), (len(task.shards) - 1, 1)
    untouched = start.values.clone()
    one, other = task.replica(), task.replica()
    drawn = generator_digests(task.device)
    first = task.gradient_on(one, start, 0, 0).values
    if source := _changed(drawn, generator_digests(task.device)):
        raise _refused(task, f"its forward draws from {source}", drawn)
    if not torch.equal(untouched, start.values):
        raise _refused(task, "its forward changes its parameters in place")
    kept = state_of(one.model)
    task.gradient_on(one, start, *another)
    again = task.gradient_on(one, start, 0, 0).values
    if name := _changed(kept, state_of(one.model)):
        raise _refused(task, f"its forward changes {name!r}, which the model keeps from call to call")
    task.gradient_on(other, start, *another)
    gradual = torch.empty_like(first)
    other.gradual(start.values, *task.samples(0, 0), gradual, lambda number: None)
    if not (torch.equal(first, again) and torch.equal(first, gradual)):
        raise _refused(task, "its gradient was not the same twice (a clock, random numbers, or earlier calls)", {})


def _changed(before: dict[str, str], after: dict[str, str]) -> str | None:
    return next((name for name in before | after if before.get(name) != after.get(name)), None)


def _refused(task: DataParallelTask, why: str, drawn: dict[str, str] | None = None) -> UsageError:
    """Return the error; with `drawn`, name the module that draws random numbers or is not reproducible."""
    module = None if drawn is None else _culprit(task, drawn)
    place = "" if module is None else f", in {module}"
    return UsageError(f"workload {task.workload.name}: {why}{place}; {EVERY_CALL}")


def _culprit(task: DataParallelTask, drawn: dict[str, str]) -> str | None:
    """Return the first module without children whose forward advances a generator, or differs when repeated."""
    replica = task.replica()
    replica.hold(task.initial_parameters().values)
    one, other = _calls(task, replica), _calls(task, replica)
    for (module, output, start, end), (_, repeated, _, _) in zip(one, other, strict=False):
        if (start != end) if drawn else (output != repeated):
            return module
    return None


def _calls(task: DataParallelTask, replica: Replica) -> list[tuple[str, str, dict[str, str], dict[str, str]]]:
    """Return name, output and generators before and after, for each module; inner modules precede outer ones."""
    calls: list[tuple[str, str, dict[str, str], dict[str, str]]] = []
    begun: list[dict[str, str]] = []

    def begin(*_: Any) -> None:
        begun.append(generator_digests(task.device))

    def end(name: str, module: nn.Module, _: Any, output: Any) -> None:
        words = f"{type(module).__name__} {name!r}" if name else type(module).__name__
        calls.append((words, hashed(output), begun.pop(), generator_digests(task.device)))

    hooks = [module.register_forward_pre_hook(begin) for module in replica.model.modules()]
    hooks += [module.register_forward_hook(partial(end, name)) for name, module in replica.model.named_modules()]
    try:
        with torch.no_grad():
            replica.loss(*task.samples(0, 0))
    finally:
        for hook in hooks:
            hook.remove()
    return calls
