"""Stands for Ray in tests of what `evaluation.engine.cluster` does when workers end: actors are objects here.

An actor does what it is given in order, when somebody waits for it, and ends where its work raises `Death`.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any


class Death(KeyboardInterrupt):
    """Ends the worker that it is raised in: nothing catches it, as nothing catches a crash."""


class RayError(Exception):
    pass


class RayTaskError(RayError):
    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Ref:
    """What will come back of a call."""

    def __init__(self, actor: Actor, call: Callable[[], Any]) -> None:
        self.actor, self.call = actor, call
        self.result: Any = None
        self.is_done = False


class Actor:
    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._made: Any = None
        self.in_line: list[Ref] = []
        self.is_dead = False
        for name in ("prepare", "do"):
            setattr(self, name, SimpleNamespace(remote=lambda *given, name=name: self._ask(name, given)))

    def _ask(self, name: str, given: tuple[Any, ...]) -> Ref:
        ref = Ref(self, lambda: getattr(self._made, name)(*given))
        self.in_line.append(ref)
        return ref

    def step(self) -> None:
        """Do the first in line; all of it if the actor is dead or ends."""
        if not self.is_dead:
            ref = self.in_line.pop(0)
            try:
                self._made = self._made or self._make()
                ref.result, ref.is_done = ref.call(), True
                return
            except Death:
                self.is_dead = True
                self.in_line.insert(0, ref)
            except Exception as error:
                ref.result, ref.is_done = RayTaskError(error), True
                return
        for ref in self.in_line:
            ref.result, ref.is_done = RayError("it died"), True
        self.in_line.clear()


class StandInRay:
    """The part of the module ``ray`` that is used, with so many cores."""

    __version__ = "0"
    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, cores: int) -> None:
        self.cores = cores
        #: Actors that were started.
        self.actors: list[Actor] = []

    @property
    def deaths(self) -> int:
        return sum(actor.is_dead for actor in self.actors)

    def is_initialized(self) -> bool:
        return True

    def put(self, value: Any) -> Any:
        return value

    def nodes(self) -> list[dict[str, bool]]:
        return [{"Alive": True}]

    def cluster_resources(self) -> dict[str, int]:
        return {"CPU": self.cores}

    available_resources = cluster_resources

    def remote(self, kind: Any) -> Any:
        def start(*given: Any) -> Actor:
            self.actors.append(Actor(lambda: kind(*given)))
            return self.actors[-1]

        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=start))

    def wait(self, refs: list[Ref], timeout: float) -> tuple[list[Ref], list[Ref]]:
        """Every actor goes on by a step."""
        for actor in dict.fromkeys(ref.actor for ref in refs if not ref.is_done):
            actor.step()
        return [ref for ref in refs if ref.is_done], []

    def get(self, ref: Ref) -> Any:
        if isinstance(ref.result, RayError):
            raise ref.result
        return ref.result

    def kill(self, actor: Actor) -> None:
        actor.in_line.clear()
