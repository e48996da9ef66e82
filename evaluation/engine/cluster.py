"""``--cluster``: batches done by workers on a Ray cluster, while this process plans, writes and reports.

A worker is an actor for each core, or each GPU, that holds the models (`evaluation.engine.worker`). It sends
back all results of a batch, which count once they have arrived. Workers, hosts and networks may fail at any
moment; only their unfinished batches are done again. A batch that ends its worker is split by condition,
which does not change its results. If it ends one worker after the other, it is split by clip until the clip
at fault is found, which fails. Each such clip costs the start of several workers, so a condition with several
of them in a row is postponed until all else is done. It then continues from the other end of the data,
because the first clips may differ from the rest (they are the shortest). If it ends workers there, too, it is
given up.

Ray is imported where it is used: nothing else needs it.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from baselines import weights
from baselines.codec import Codec, Rate
from evaluation.datasets.base import Clip
from evaluation.engine.evaluator import Evaluator, Work
from evaluation.engine.jobs import BatchJob, ClipJob, Job
from evaluation.engine.plug_ins import added_sources
from evaluation.engine.request import ParsedRequest, parse_weights
from evaluation.engine.sizes import Size
from evaluation.engine.worker import (
    Lacks,
    Ready,
    Setup,
    Tree,
    Worker,
)
from evaluation.run.environment import usable_cores
from evaluation.run.store import RunStore
from qincodec import model_folder
from qincodec.core.errors import Unavailable, UserError, count, said

#: Batches that are with a worker at once: one is computed, one waits.
IN_LINE = 2
#: Number of workers that may end with the same work before it is split by clip, or fails.
MAX_ENDS = 3
#: Clips of a condition that may fail like that in a row before it is postponed, and again before the end.
MAX_CLIPS = 2
#: Seconds between two checks for workers that have come or gone.
LOOK_S = 1.0
#: Seconds without any worker before a message says so.
SILENCE_S = 30.0


@dataclass
class _Task:
    job: Job
    #: Number of workers that it has ended.
    ends: int = 0
    #: Whether it was postponed.
    is_late: bool = False


@dataclass
class _Hired:
    """An actor and its work: reference to the result -> task; None: its preparation."""

    actor: Any
    in_line: dict[Any, _Task | None] = field(default_factory=dict)
    is_ready: bool = False


class Cluster:
    """Workers of a Ray cluster, for one run. Use as a context manager.

    Args:
        address: "local" (this machine), "auto" (the cluster that this host belongs to) or HOST:PORT.
        request: of the run.
        expected: identities that the workers must have, too (`evaluation.engine.worker.identities`).
        note: called with a line about workers that come or go.

    Raises:
        UserError: the cluster does not exist.
        Unavailable: Ray is not installed.
    """

    def __init__(
        self,
        address: str,
        request: ParsedRequest,
        expected: Mapping[str, Any],
        note: Callable[[str], None] = lambda line: None,
    ) -> None:
        typed = request.typed
        self._note = note
        self._asked = typed.workers
        self._resource = "GPU" if typed.device.startswith("cuda") else "CPU"
        if self._resource == "GPU":  # Ray shows each worker only its own
            request = replace(request, typed=replace(typed, device="cuda"))
        setup = Setup(request, _trees(request), added_sources(), expected)
        self._trees = setup.trees
        self._hired: list[_Hired] = []
        self._failed_starts = 0
        #: Number of clips in a row that failed because they ended workers, by condition and `_Task.is_late`.
        self._ended: Counter[tuple[str, bool]] = Counter()
        #: The clips counted there, by condition, in order.
        self._culprits: dict[str, dict[str, None]] = {}
        #: Work that was reported as lost.
        self._reported: set[str] = set()
        self._late: list[_Task] = []
        #: Codecs whose highest rate ended workers in the pilot: other rates are not cut out of it.
        self._alone: set[str] = set()
        #: Condition -> why.
        self._given_up: dict[str, str] = {}
        self._heard = time.monotonic()
        self._ray = _import_ray()
        self._joined = not self._ray.is_initialized()
        self._on_sigterm = signal.getsignal(signal.SIGTERM)
        if self._joined:
            _join(self._ray, address, typed.workers)
            # Ray's own handler would abort this process in the middle of its work.
            _handle_sigterm(
                signal.default_int_handler if self._on_sigterm is signal.SIG_DFL else self._on_sigterm
            )
        self._setup = self._ray.put(setup)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hired in self._hired:
            self._ray.kill(hired.actor)
        self._hired.clear()
        if self._joined:
            self._ray.shutdown()
            _handle_sigterm(self._on_sigterm)

    def describe(self) -> dict[str, Any]:
        """For environment.json: the cluster as it is now."""
        resources = self._ray.cluster_resources()
        hosts = sum(node["Alive"] for node in self._ray.nodes())
        numbers = {name.lower() + "s": int(resources.get(name, 0)) for name in ("CPU", "GPU")}
        return {"ray": self._ray.__version__, "hosts": hosts, **numbers}

    def evaluate(
        self, works: Iterable[Work], evaluator: Evaluator, store: RunStore, on_step: Callable[[int], None]
    ) -> None:
        """Do the work on batches and write the results. For the arguments see `Evaluator.work`."""
        self.each(BatchJob(work, evaluator, store, on_step) for work in works)

    def measure(self, label: str, codec: Codec, rate: Rate, of: Rate, clips: list[Clip]) -> list[Size]:
        """Bytes and seconds of clips of a pilot (`evaluation.engine.sizes.Measure`)."""
        found: dict[str, Size] = {}
        self.each(ClipJob(clip, label, rate, of, found, self._alone) for clip in clips)
        return [found.get(clip.id) for clip in clips]

    def each(self, jobs: Iterable[Job]) -> None:
        """Do every job once.

        Raises:
            UserError: a host cannot join, or no worker starts.
        """
        todo: deque[_Task] = deque()
        rest = (_Task(job) for job in jobs)
        looked = -LOOK_S
        while self._hand_out(todo, rest):
            if time.monotonic() - looked >= LOOK_S:
                self._hire()
                looked = time.monotonic()
            self._say_silence()
            refs = {ref: hired for hired in self._hired for ref in hired.in_line}
            if not refs:
                time.sleep(LOOK_S)
                continue
            done = set(self._ray.wait(list(refs), timeout=LOOK_S)[0])
            for ref in [ref for ref in refs if ref in done]:  # in the order in which a worker does them
                if refs[ref] in self._hired:  # not lost with another of these
                    todo.extendleft(self._receive(refs[ref], ref))

    def _hand_out(self, todo: deque[_Task], rest: Iterator[_Task]) -> int:
        """Give every ready worker something to do; returns how many known tasks are not done."""
        for place in range(IN_LINE):
            for hired in self._hired:
                if not hired.is_ready or len(hired.in_line) > place:
                    continue
                task = self._next(todo, rest)
                if task is None:
                    break
                hired.in_line[self._send(hired, task, {})] = task
        count = sum(task is not None for hired in self._hired for task in hired.in_line.values())
        if not count and not todo and (task := next(rest, None)) is not None:
            todo.append(task)  # nobody is ready yet
        return count + len(todo) + len(self._late)

    def _next(self, todo: deque[_Task], rest: Iterator[_Task]) -> _Task | None:
        """The next task that is neither given up nor postponed."""
        while True:
            task = todo.popleft() if todo else next(rest, None)
            if task is None and self._late:
                task = self._late.pop()
            if task is None:
                return None
            points = set(task.job.points)
            for point in points & self._given_up.keys():
                if (gone := task.job.part({point})) is not None:
                    gone.fail(self._given_up[point])
            points -= self._given_up.keys()
            late = {point for point in points if self._ended[point, False] >= MAX_CLIPS and not task.is_late}
            if (put_off := task.job.part(late)) is not None:
                self._late.append(_Task(put_off, is_late=True))
            if (job := task.job.part(points - late)) is not None:
                return replace(task, job=job)

    def _send(self, hired: _Hired, task: _Task, contents: Mapping[str, Mapping[str, bytes]]) -> Any:
        return hired.actor.do.remote(task.job.order(), contents)

    def _receive(self, hired: _Hired, ref: Any) -> list[_Task]:
        """Take a result; returns the tasks to do again."""
        try:
            found = self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise error.cause from None
            raise
        except self._ray.exceptions.RayError as error:
            return self._lost(hired, error)
        task = hired.in_line.pop(ref)
        self._heard = time.monotonic()
        if isinstance(found, Lacks):
            contents = {name: self._content(name) for name in found.names}
            if task is None:
                hired.in_line[hired.actor.prepare.remote(contents)] = None
            else:
                hired.in_line[self._send(hired, task, contents)] = task
        elif task is None:
            assert isinstance(found, Ready)
            hired.is_ready, self._failed_starts = True, 0
        else:
            task.job.take(found)
            for point in task.job.points:
                self._ended[point, False] = self._ended[point, True] = 0
                self._culprits.pop(point, None)
        return []

    def _lost(self, hired: _Hired, error: Exception) -> list[_Task]:
        """Tasks of a worker that has ended. It was working on the first in line."""
        task, *others = hired.in_line.values()
        self._hired.remove(hired)
        self._ray.kill(hired.actor)
        # The event from Ray's text, without the paragraph on frequent causes.
        reason = str(error).strip().splitlines()[-1].partition(" Worker exit type")[0].strip().rstrip(".")
        if task is None:
            self._failed_starts += 1
            if self._failed_starts >= MAX_ENDS:
                raise UserError(
                    f"{MAX_ENDS} workers ended before they were ready: {reason}; every host of the cluster "
                    "needs the same version of this program: pip install 'qincodec[cluster]' there"
                )
            return []
        what = f"{_some(task.job.points, 'condition')}, {_some(task.job.clips, 'clip')}"
        if what not in self._reported:  # it may end `MAX_ENDS` workers
            self._reported.add(what)
            self._note(f"a worker was lost ({reason}) with {what}; its work is done again")
        again = [task, *(other for other in others if other is not None)]
        task.ends += 1
        if task.ends < (MAX_ENDS if len(task.job.points) == 1 else 1):
            return again[::-1]
        if parts := task.job.parts():
            return [*again[:0:-1], *(_Task(part, is_late=task.is_late) for part in reversed(parts))]
        task.job.fail(
            f"{MAX_ENDS} workers ended one after the other while they worked on this clip: a crash of the "
            "codec or a metric, or too little memory"
        )
        for point in task.job.points:
            self._culprits.setdefault(point, {}).update(dict.fromkeys(task.job.clips))
            self._count_failed(point, task.is_late)
        return again[:0:-1]

    def _count_failed(self, point: str, is_late: bool) -> None:
        """A clip of a condition has failed because it ended workers."""
        self._ended[point, is_late] += 1
        if is_late and self._ended[point, True] >= MAX_CLIPS and point not in self._given_up:
            self._given_up[point] = (
                f"given up: {point} ended {MAX_ENDS} workers or more on each of "
                f"{_some([*self._culprits[point]], 'clip')}: a crash of the codec or a metric, or too little "
                "memory; the same command tries again"
            )
            self._note(self._given_up[point])

    def _content(self, name: str) -> dict[str, bytes]:
        """Content that a worker lacks; empty if it is gone here, too.

        Raises:
            UserError: weights have changed since the run began.
        """
        if tree := self._trees.get(name):
            return tree.read()
        path = weights.find(name) if name in weights.FILES else Path(name)
        try:
            return {} if path is None else {".": path.read_bytes()}
        except OSError:
            return {}

    def _hire(self) -> None:
        """As many workers as there are cores or GPUs: hosts may have come or gone."""
        there = int(self._ray.cluster_resources().get(self._resource, 0))
        kind = {"num_cpus": 1, "num_gpus": 1} if self._resource == "GPU" else {"num_cpus": 1}
        for _ in range(max(1, self._asked or there) - len(self._hired)):
            actor = self._ray.remote(Worker).options(**kind, max_restarts=0).remote(self._setup)
            self._hired.append(_Hired(actor, {actor.prepare.remote({}): None}))

    def _say_silence(self) -> None:
        if any(hired.is_ready for hired in self._hired) or time.monotonic() - self._heard < SILENCE_S:
            return
        self._heard = time.monotonic()
        free = int(self._ray.available_resources().get(self._resource, 0))
        self._note(
            f"no worker is ready ({len(self._hired)} are wanted, {free} {self._resource}s are free): waiting"
        )


def on_this_host(request: ParsedRequest) -> ParsedRequest:
    """The request as the driver of a cluster loads it: the GPUs may be on other hosts."""
    typed = request.typed
    if typed.cluster is None or not typed.device.startswith("cuda") or torch.cuda.is_available():
        return request
    return replace(request, typed=replace(typed, device="cpu"))


def _some(names: Sequence[str], what: str) -> str:
    """ "clip a", "4 clips (a, b, c, d)", "12 clips (a, b, c, d, ...)"."""
    if len(names) == 1:
        return f"{what} {names[0]}"
    return f"{count(len(names), what)} ({', '.join([*names[:4], *(['...'] if len(names) > 4 else [])])})"


def _trees(request: ParsedRequest) -> dict[str, Tree]:
    """Weights that the request names."""
    trees = {}
    for spec in request.codecs:
        if spec.weights is None or spec.weights in model_folder.shipped():
            continue
        path = Path(spec.weights).expanduser()
        if path.exists():
            trees[f"{spec.label}:"] = Tree.of(path)
    given = request.typed.weights
    names = given if isinstance(given, Mapping) else parse_weights(given)
    for name in names:
        path_of = weights.find(name) if name in weights.FILES else None
        if path_of is not None:
            trees[name] = Tree.of(path_of)
    return trees


def _import_ray() -> Any:
    # Set before Ray is imported; the user's own setting has priority.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise Unavailable(f"--cluster needs Ray ({said(error)}): pip install 'qincodec[cluster]'") from error
    return ray


def _handle_sigterm(handler: Any) -> None:
    # Ray, too, changes nothing in another thread, or for a handler that is not Python's own.
    if threading.current_thread() is threading.main_thread() and handler is not None:
        signal.signal(signal.SIGTERM, handler)


def _join(ray: Any, address: str, workers: int | None) -> None:
    # Ray prints events of hosts to stdout, which belongs to the result. Lost workers are reported here.
    ray._private.worker._worker_logs_enabled = False
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        try:
            ray.init(address="local", num_cpus=workers or usable_cores(), include_dashboard=False, **quiet)
        except Exception as error:  # a node that does not start in time is an `Exception` without a class
            raise UserError(
                f"--cluster local: Ray did not start here ({said(error)}); run the same command again when "
                "the machine is less busy, or without --cluster"
            ) from error
        return
    try:
        if address != "auto":  # Ray would try for minutes
            host, _, port = address.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        ray.init(address=address, **quiet)
    except Exception as error:  # Ray raises whatever its network gives it
        start = "start one with `ray start --head`" if address == "auto" else "`ray status` there shows why"
        raise UserError(
            f"--cluster {address}: no Ray cluster answers ({said(error)}); {start}, or give --cluster local "
            "for this machine alone"
        ) from error
