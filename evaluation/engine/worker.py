"""A worker of a cluster: holds the models on its host, and does the work on batches of clips.

An order has all known results, and the worker sends back all new ones, so it needs no run folder. It reads
data and weights from its own disk if they have the same path and content. Otherwise it names what it `Lacks`,
and gets the order again with the content.
"""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from baselines import weights
from baselines.codec import Codec, Rate
from baselines.registry import missing_weights
from baselines.rendered import Rendered
from evaluation.datasets.base import Clip
from evaluation.datasets.unchanged import Unchanged
from evaluation.embeddings import EMBEDDINGS
from evaluation.embeddings.base import Embedding
from evaluation.engine.coding import Coder
from evaluation.engine.conditions import PreparedCondition, identify, load_codec
from evaluation.engine.embedder import load_embeddings
from evaluation.engine.evaluator import Evaluator, Work
from evaluation.engine.ledger import Gathered
from evaluation.engine.noise_floor import noise_floor
from evaluation.engine.plug_ins import add_files, digest_of
from evaluation.engine.request import CodecSpec, ParsedRequest
from evaluation.engine.sizes import Size, Sizes
from evaluation.metrics import load_metrics
from evaluation.metrics.base import Metric, describe_metric
from evaluation.metrics.embedding import describe_embedding
from evaluation.records import Condition, DecodedFile
from qincodec.codec import check_device
from qincodec.core.errors import UserError
from qincodec.core.files import file_sha256
from qincodec.core.plugins import Source

#: Content to send: path on the driver's host -> path below it -> bytes; "." is the file itself.
Contents = Mapping[str, Mapping[str, bytes]]


@dataclass(frozen=True)
class Lacks:
    """Content that a worker needs before it can continue: paths of files of the driver, names of weights."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class Tree:
    """A file or folder on the driver's host: path below it ("." for a file itself) -> SHA-256."""

    path: Path
    digests: Mapping[str, str]

    @classmethod
    def of(cls, path: Path) -> Tree:
        path = path.absolute()
        files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
        return cls(path, {file.relative_to(path).as_posix(): file_sha256(file) for file in files})

    def read(self) -> dict[str, bytes]:
        """Content by path below it.

        Raises:
            UserError: it has changed.
        """
        found = {}
        for below, digest in self.digests.items():
            path = self.path / below
            try:
                found[below] = path.read_bytes()
            except OSError as error:
                raise UserError(f"'{path}' cannot be read: {error.strerror}; restore it") from error
            if hashlib.sha256(found[below]).hexdigest() != digest:
                raise UserError(
                    f"'{path}' has changed since the run began; restore the old file, or evaluate again in a "
                    "new run folder"
                )
        return found

    def is_here(self) -> bool:
        """Whether this host has the same content under the same path."""
        files = ((self.path / name, digest) for name, digest in self.digests.items())
        return all(file.is_file() and file_sha256(file) == digest for file, digest in files)


@dataclass(frozen=True)
class Setup:
    """Everything that the workers of a run load.

    Attributes:
        request: of the run.
        trees: its weights: label of a codec followed by ":", or name of `baselines.weights.FILES` -> content.
        plug_ins: parts from Python files, as they were when the run began; workers that start after a file
            was edited get the same.
        expected: parts that the driver has loaded: name -> identity (`identities`).
    """

    request: ParsedRequest
    trees: Mapping[str, Tree]
    plug_ins: Sequence[Source]
    expected: Mapping[str, Any]


@dataclass(frozen=True)
class Ready:
    """Reply of a worker that has loaded everything."""

    host: str


class Order(Protocol):
    """Work that is sent to a worker.

    Attributes:
        files: path on the driver's host -> leading hex digits of its SHA-256.
    """

    @property
    def files(self) -> Mapping[Path, str]: ...

    def work(self, worker: Worker, places: Mapping[Path, Path]) -> Any:
        """Do it.

        Args:
            places: path on this host of each of ``files``.
        """


def identities(
    codecs: Mapping[str, dict[str, Any]], metrics: Sequence[Metric], embeddings: Sequence[Embedding]
) -> dict[str, Any]:
    """Identity of each part of a run; it must be the same on all hosts, or their rows would differ.

    Args:
        codecs: row label -> identity.
    """
    found: dict[str, Any] = {f"codec {label}": identity for label, identity in codecs.items()}
    found |= {f"metric {metric.name}": describe_metric(metric) for metric in metrics}
    found |= {f"embedding {embedding.name}": describe_embedding(embedding) for embedding in embeddings}
    return found


class Worker:
    """A worker. It computes with one CPU thread, like each thread of a single process."""

    def __init__(self, setup: Setup) -> None:
        torch.set_num_threads(1)
        os.environ["QINCODEC_OFFLINE"] = "1"  # the driver sends missing files
        self.setup = setup
        self.settings = setup.request.typed.settings
        self.unchanged = Unchanged()
        self.codecs: dict[str, Codec] = {}
        self.metrics: list[Metric] = []
        self.embeddings: list[Embedding] = []
        coder = Coder(Gathered(), self.settings.sample_rate, self.settings.channels, self.unchanged)
        self.sizes = Sizes(coder)
        self._temporary = tempfile.TemporaryDirectory(prefix="evaluate-worker-")
        self._folder = Path(self._temporary.name)
        self._weights: dict[str, Path] = {}

    # --- models ------------------------------------------------------------------------------------------

    def prepare(self, contents: Contents) -> Ready | Lacks:
        """Load what the run needs.

        Raises:
            UserError: something is missing here, or differs from the driver's.
        """
        host = socket.gethostname()
        try:
            for name, files in contents.items():
                self._weights[name] = self._keep(
                    f"weights-{len(self._weights)}", files, self._file_name(name)
                )
            lacking = self._lacking()
            if lacking:
                return Lacks(tuple(dict.fromkeys(lacking)))
            self._load()
        except UserError as error:
            raise UserError(
                f"a worker on host {host} cannot join: {error}; install the same packages on all hosts"
            ) from error
        return Ready(host)

    def _lacking(self) -> list[str]:
        """Weights that are missing here; the others are used from now on."""
        for name, tree in self.setup.trees.items():
            if name not in self._weights and tree.is_here():
                self._weights[name] = tree.path
        lacking = [name for name in self.setup.trees if name not in self._weights]
        if lacking:
            return lacking
        for name in self._weights:
            if name in weights.FILES:
                weights.use(name, self._weights[name])
        for number, source in enumerate(self.setup.plug_ins):
            add_files([f"{self._file_of(source, number)}:{source.name}"])
        for spec in self._specs():
            if spec.given is None:
                lacking += missing_weights(spec.codec, spec.weights)
        for embedding in self._names("embedding", self.setup.request.embeddings):
            file = getattr(EMBEDDINGS.load(embedding), "weights_name", None)
            if file is not None and weights.find(file) is None:
                lacking.append(file)
        return lacking

    def _file_of(self, source: Source, number: int) -> Path:
        """The plug-in's file if it has not changed, else a copy."""
        with suppress(OSError):
            if source.path.read_bytes() == source.content:
                return source.path
        if (beside := str(source.path.parent)) not in sys.path:
            sys.path.append(beside)  # its other files may be here
        return self._keep(f"plug-in-{number}", {".": source.content}, source.path.name)

    def _file_name(self, name: str) -> str:
        tree = self.setup.trees.get(name)
        return "weights" if tree is None else tree.path.name

    def _specs(self) -> list[CodecSpec]:
        """Codecs of the run, with this host's paths of weights. An object gets the hash of its code on this
        host, because only its class's name and its values are sent."""
        specs = [spec for spec in self.setup.request.codecs if f"codec {spec.label}" in self.setup.expected]
        places = {spec.label: self._weights.get(f"{spec.label}:") for spec in specs}
        found = []
        for spec in specs:
            if (place := places[spec.label]) is not None:
                spec = replace(spec, weights=str(place))
            # The code of a class that is defined in the script or notebook itself is sent.
            if spec.given is not None and type(spec.given).__module__ != "__main__":
                spec = replace(spec, digest=digest_of(spec.given))
            found.append(spec)
        return found

    def _names(self, kind: str, names: Sequence[str]) -> list[str]:
        """Names that the driver has, too."""
        return [name for name in names if f"{kind} {name}" in self.setup.expected]

    def _load(self) -> None:
        request = self.setup.request
        check_device(request.typed.device)
        found = {}
        for spec in self._specs():
            self.codecs[spec.label] = load_codec(spec, request.typed.device)
            found[spec.label] = identify(spec, self.codecs[spec.label], self.settings)
        self.metrics, reasons = load_metrics(self._names("metric", request.metrics), request.typed.speech)
        self.embeddings, others = load_embeddings(
            self._names("embedding", request.embeddings), request.typed.device
        )
        for reason in (reasons | others).values():
            raise UserError(reason)
        here = identities(found, self.metrics, self.embeddings)
        for name, expected in self.setup.expected.items():
            if here[name] != expected:
                raise UserError(f"{name} is {here[name]} on this host and {expected} where the run began")

    def coded(self, condition: Condition) -> PreparedCondition:
        """A condition of a codec."""
        rate = Rate(condition.nominal, condition.settings)
        return PreparedCondition(condition, self.codecs[condition.codec], rate)

    # --- work --------------------------------------------------------------------------------------------

    def do(self, order: Order, contents: Contents) -> Any:
        """Result of the order, or what the worker `Lacks`.

        Args:
            contents: of files that this host lacks. A file without content does not exist; its rows report
                that.
        """
        sent: dict[Path, Path] = {}
        places: dict[Path, Path] = {}
        lacking = []
        for number, (path, digest) in enumerate(order.files.items()):
            if files := contents.get(str(path)):
                places[path] = sent[path] = self._keep(f"data-{number}", files, path.name)
            elif str(path) in contents or self._is_here(path, digest):
                places[path] = path
            else:
                lacking.append(str(path))
        try:
            if lacking:
                return Lacks(tuple(lacking))
            found = order.work(self, places)
            # Messages about a copy name the original file.
            return found.renamed({str(copy): str(path) for path, copy in sent.items()})
        finally:
            for path in sent.values():
                path.unlink(missing_ok=True)

    def _is_here(self, path: Path, digest: str) -> bool:
        try:
            return self.unchanged.read(path, digest, lambda: True)
        except UserError:
            return False

    def _keep(self, name: str, files: Mapping[str, bytes], file_name: str) -> Path:
        """Write content that was sent; ``file_name``: name of the file or folder.

        Raises:
            UserError: it cannot be written, for example because the disk is full.
        """
        root = self._folder / name / file_name
        try:
            for relative, content in files.items():
                path = root / relative
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        except OSError as error:
            raise UserError(
                f"host {socket.gethostname()} cannot write files in '{self._folder}': {error.strerror}; free "
                "some space there, or start Ray there with another TMPDIR"
            ) from error
        return root


class _SentFolder(Rendered):
    """The files of a batch from a folder of decoded files, found by the driver."""

    def __init__(self, label: str, kbps: float | None, paths: Mapping[str, Path]) -> None:
        self.label, self.kbps, self._paths = label, kbps, paths

    def find(self, clip_id: str, source_name: str) -> Path:
        return self._paths[clip_id]


@dataclass(frozen=True)
class Ordered:
    """One condition of a `BatchOrder`.

    Attributes:
        files: clip id -> file, for a condition that was decoded elsewhere.
        paths: clip id -> path on the driver's host.
        delay: see `Work.todo`.
    """

    condition: Condition
    files: Mapping[str, DecodedFile]
    paths: Mapping[str, Path]
    delay: int | None


@dataclass(frozen=True)
class BatchOrder:
    """The work on a batch; the result is everything added to a ledger that began with ``known``.

    Attributes:
        conditions: of the run, see `Evaluator`.
    """

    clips: list[Clip]
    todo: list[Ordered]
    conditions: list[Condition]
    known: Gathered

    @property
    def files(self) -> Mapping[Path, str]:
        found = {clip.path: clip.content_hash for clip in self.clips}
        for ordered in self.todo:
            found |= {path: ordered.files[clip].fingerprint or "" for clip, path in ordered.paths.items()}
        return found

    def work(self, worker: Worker, places: Mapping[Path, Path]) -> Gathered:
        worker.sizes.forget()  # the pilot is over
        clips = [replace(clip, path=places[clip.path]) for clip in self.clips]
        typed = worker.setup.request.typed
        evaluator = Evaluator(
            self.known,
            worker.settings,
            [worker.coded(condition) for condition in self.conditions],
            worker.metrics,
            worker.embeddings,
            typed.device,
            typed.save_audio,
            worker.unchanged,
        )
        todo = [(self._prepared(worker, ordered, places), ordered.delay) for ordered in self.todo]
        evaluator.work(Work(clips, todo))
        return self.known.additions()

    def _prepared(self, worker: Worker, ordered: Ordered, places: Mapping[Path, Path]) -> PreparedCondition:
        condition = ordered.condition
        if condition.codec in worker.codecs:
            return worker.coded(condition)
        if ordered.files:
            paths = {clip: places[path] for clip, path in ordered.paths.items()}
            rendered = _SentFolder(condition.codec, condition.kbps, paths)
            return PreparedCondition(condition, rendered=rendered, files=ordered.files)
        return next(prepared for prepared in noise_floor() if prepared.condition == condition)


@dataclass(frozen=True)
class Sized:
    """Result of a `SizeOrder`."""

    size: Size

    def renamed(self, names: Mapping[str, str]) -> Sized:
        """It names no file."""
        return self


@dataclass(frozen=True)
class SizeOrder:
    """Measurement of a clip of the pilot (`Sizes.size`)."""

    clip: Clip
    label: str
    rate: Rate
    of: Rate

    @property
    def files(self) -> Mapping[Path, str]:
        return {self.clip.path: self.clip.content_hash}

    def work(self, worker: Worker, places: Mapping[Path, Path]) -> Sized:
        clip = replace(self.clip, path=places[self.clip.path])
        codec = worker.codecs[self.label]
        worker.sizes.turn_to(self.label, codec)
        return Sized(worker.sizes.size(self.label, codec, self.rate, self.of, clip))
