"""One run over files: where it begins, what it writes, and what it tells those who watch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any, cast

from penstock.row_files.fields import Invalid
from penstock.row_files.readers import Format, is_utf8
from penstock.scoring.arrow_files import ArrowReader, library
from penstock.scoring.checkpoint import Checkpoint, difference, load, remove, stamp_of
from penstock.scoring.chunk import Chunk, Scored
from penstock.scoring.files import beside, check_parts, check_rejected, locked
from penstock.scoring.one_model import OneModel, OtherModel, described
from penstock.scoring.outputs import OutputColumns
from penstock.scoring.reading import Reading
from penstock.scoring.run import Stopping, run
from penstock.scoring.sending import Request, Sender, rows_of_requests
from penstock.scoring.sinks import ArrowSink, File, RejectsSink, Sink, TextSink
from penstock.scoring.sources import BINARY, FileFormat, Source, format_of
from penstock.scoring.writers import check, of_numbers
from penstock_client import Client, ModelInfo, PenstockError

SAVE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to do.

    Attributes:
        sources: the files to read.
        output: the file to write; None for standard output.
        format: of the output; None to tell it by its suffix, or else as the input.
        rejects: the file for rows without an answer.
        request: the options of all requests.
        restart: begin again, whatever is there.
        save_seconds: how often a checkpoint is written: as much work as this is done again after a crash.
    """

    sources: list[Source]
    output: Path | None
    format: FileFormat | None
    rejects: Path
    request: Request
    restart: bool = False
    save_seconds: float = SAVE_SECONDS

    @property
    def checkpoint(self) -> Path | None:
        """The file of the checkpoint: beside the output, if every input can be read again."""
        if self.output is None or any(not each.stamp for each in self.sources):
            return None
        if self.output.exists() and not self.output.is_file():  # such as /dev/null
            return None
        return beside(self.output, "checkpoint")

    @property
    def inherits(self) -> bool:
        """Whether there is an output that this run is to replace."""
        return self.output is not None and self.output.is_file() and self.output.stat().st_size > 0


class Job:
    """A run, from its beginning or from a checkpoint.

    Args:
        plan: what to do.
        client: the connection.
        info: the model.
        on_waiting: told the error for which the run waits, and None when the server answers again.

    Attributes:
        done: rows that are written or rejected.
        resumed: the number of these that an earlier run did.
        rejected: rows without an answer.
        is_done: whether an earlier run has done all of it: there is nothing to run.
        reading: the files.
        stopping: set it to end the run after the chunk that is being written.

    Raises:
        Invalid: a file cannot be used, another run writes it, or the checkpoint is of another run.
        PenstockError: the server cannot describe the model.
        OSError: a file cannot be opened.
    """

    def __init__(
        self, plan: Plan, client: Client, info: ModelInfo, on_waiting: Callable[[PenstockError | None], None]
    ) -> None:
        self.stopping = Stopping()
        self.is_done = False
        self._plan = plan
        with ExitStack() as stack:
            for path in sorted({plan.output or plan.rejects, plan.rejects}):
                stack.enter_context(locked(path))
            found = None if plan.checkpoint is None or plan.restart else load(plan.checkpoint)
            version = info.version
            asked = {"model": plan.request.model, "version": plan.request.version}
            if found is not None and not difference(found.job, asked):
                version = found.version  # whatever has become the default or got the label since
            info = described(client, info.name, version)
            self._rows = rows_of_requests(info)
            self.reading = Reading(plan.sources, info, self._rows)
            stack.callback(self.reading.close)
            self._begin(found, client, info, on_waiting)
            self._held = stack.pop_all()

    def _begin(
        self,
        found: Checkpoint | None,
        client: Client,
        info: ModelInfo,
        on_waiting: Callable[[PenstockError | None], None],
    ) -> None:
        plan = self._plan
        self._form = plan.format or (format_of(str(plan.output)) if plan.output else None)
        self._form = self._form or self.reading.first.format
        wanted = plan.request.outputs
        self._outputs = [spec for spec in info.outputs if wanted is None or spec.name in wanted]
        start = self._start(found, info)
        self.done = self.resumed = start.rows
        self.rejected = start.rejected
        self._saved = start
        if self.is_done:
            return
        if plan.output is not None and self._form in BINARY:
            check_parts(beside(plan.output, "parts"))
        self.reading.check_others(with_addresses=plan.restart and plan.inherits)
        self._is_kept = found is not None
        self._one_model = OneModel(client, info)
        request = replace(plan.request, version=start.version)
        self._sender = Sender(client, request, on_waiting, self.stopping, self._one_model)
        self._sink = self._open_sink(start)
        self._rejects = RejectsSink(
            plan.rejects, start.rejects, of_numbers(self.reading.first, self.reading.fields)
        )
        self._has_begun = False
        self._save_at = monotonic() + self._plan.save_seconds

    def run(self) -> None:
        """Scores all rows that are not done. However it ends, the checkpoint says how far it came.

        Raises:
            Invalid: a file cannot be used.
            PenstockError: the run cannot go on.
            OtherModel: the server has come back with another model.
            OSError: a file cannot be read or written.
        """
        if self.is_done:
            self._held.close()
            return
        placed: dict[int, str] = {}

        def chunks() -> Any:
            for each in self.reading.chunks(skip=self.resumed):
                placed[id(each.chunk)] = each.source
                yield each.chunk

        def write(chunk: Chunk, scored: Scored, is_idle: bool) -> None:
            self._write(chunk, scored, placed.pop(id(chunk)))
            if self._plan.output is None and is_idle:
                self._sink.position()

        try:
            if run(chunks(), self._sender.score, write, self._rows, self.stopping):
                self._finish()
        finally:
            self._leave()

    def _write(self, chunk: Chunk, scored: Scored, source: str) -> None:
        self._begin_writing()
        errors = self._sink.write(chunk, scored)
        if errors:
            rows = chunk.rows()
            for place in sorted(errors):
                self._rejects.write(rows[place], self.done + place + 1, source, errors[place])
        self.done += len(chunk)
        self.rejected += len(errors)
        if monotonic() >= self._save_at:
            if self._one_model.is_same():  # else it is gone: what becomes of it, the next request says
                self._save()
            self._save_at = monotonic() + self._plan.save_seconds

    def _begin_writing(self) -> None:
        """Before the first row: whenever the process ends from now on, there is a checkpoint."""
        if self._has_begun:
            return
        self._has_begun = True
        plan = self._plan
        if plan.checkpoint is not None:
            if not self._is_kept:
                self._saved.save(plan.checkpoint)
        elif plan.output is not None:
            remove(beside(plan.output, "checkpoint"))  # of an earlier run, whose output is replaced
        if plan.output is not None:
            beside(plan.output, "done").unlink(missing_ok=True)
        self._rejects.begin()

    def _save(self) -> None:
        path = self._plan.checkpoint
        if path is not None and self._saved.rows != self.done:
            rejects, output = self._rejects.position(), self._sink.position()
            self._saved = replace(
                self._saved, rows=self.done, rejected=self.rejected, output=output, rejects=rejects
            )
            self._saved.save(path)

    def _finish(self) -> None:
        self._begin_writing()
        self._one_model.is_same()
        self._rejects.position()
        self._sink.finish()
        output, checkpoint = self._plan.output, self._plan.checkpoint
        if output is not None and checkpoint is not None:
            # First the one, then the other: a run that is killed in between is a finished one.
            ended = replace(self._saved, rows=self.done, rejected=self.rejected, stamp=stamp_of(output))
            ended.save(beside(output, "done"))
            checkpoint.unlink(missing_ok=True)
        self._is_finished = True

    _is_finished = False

    def _leave(self) -> None:
        with self._held:
            self._held.callback(self._rejects.close)
            if not self._is_finished:
                self._held.callback(self._sink.close)
                self._save_last()

    def _save_last(self) -> None:
        if self._has_begun:
            with suppress(OtherModel, PenstockError):  # the reason why the run ended is told instead
                self._one_model.is_same()
            try:
                if not self._one_model.is_other:  # else it is not known since when
                    self._save()
            finally:
                if self._plan.checkpoint is not None:
                    self.done, self.rejected = self._saved.rows, self._saved.rejected

    def _start(self, found: Checkpoint | None, info: ModelInfo) -> Checkpoint:
        """Where the run begins.

        Raises:
            Invalid: there is a checkpoint of another run, or a file that nothing says can be replaced.
        """
        plan, path = self._plan, self._plan.checkpoint
        job: dict[str, Any] = {
            "model": plan.request.model,
            "input": [[each.name, each.stamp] for each in plan.sources],
            "format": self._form,
            "outputs": [spec.name for spec in self._outputs],
            "version": plan.request.version,
            "rejected": str(plan.rejects),
        }
        new = Checkpoint(job, version=info.version, sha256=info.sha256)
        ended = self._ended(new)
        if ended is not None:
            self.is_done = True
            if path is not None:
                path.unlink(missing_ok=True)
            return ended
        if found is None:
            if plan.inherits and not plan.restart:
                raise Invalid(f"{plan.output} exists, {self._why_not(new)}; --restart replaces it")
            check_rejected(plan.rejects, plan.restart)
            return new
        differs = difference(found.job, job)
        if differs:
            raise Invalid(f"{path} is of another run: {differs}; --restart begins again")
        if not found.is_by(info.version, info.sha256):
            raise Invalid(
                f"{path}: the model is another one: {found.model} then, {info.sha256} now; "
                "--restart begins again"
            )
        return replace(found, sha256=info.sha256)

    def _ended(self, new: Checkpoint) -> Checkpoint | None:
        """The record of an earlier run that has done this one; None if there is none.

        Raises:
            Invalid: the file of that name is not such a record.
        """
        output = self._plan.output
        if output is None:
            return None
        ended = load(beside(output, "done"), is_foreign=True)
        if ended is None or self._plan.restart or self._plan.checkpoint is None:
            return None
        is_this = not difference(ended.job, new.job) and ended.is_by(new.version, new.sha256)
        return ended if is_this and _is_untouched(ended, output) else None

    def _why_not(self, new: Checkpoint) -> str:
        """Why an output that is there is not what this run would write, as far as it can be told."""
        output = self._plan.output
        ended = None if output is None else load(beside(output, "done"), is_foreign=True)
        if output is None or ended is None:
            return "and no checkpoint beside it says how to go on"
        if not _is_untouched(ended, output):
            return "and has been changed since a run finished it"
        differs = difference(ended.job, new.job)
        if differs:
            return f"of a finished run that is another one: {differs}"
        return f"of a finished run by another model: {ended.model} then, {new.model} now"

    def _open_sink(self, start: Checkpoint) -> Sink:
        """The output, continued where the last run ended.

        Raises:
            Invalid: the rows cannot be written in this format.
        """
        plan, first = self._plan, self.reading.first
        if self._form in BINARY:
            if plan.output is None:
                raise Invalid(f"{self._form} cannot be written to standard output: name a file with --output")
            if first.format == "jsonl":
                raise Invalid("JSON Lines have no fixed columns, so they cannot become Parquet or Arrow")
            return ArrowSink(
                plan.output, self._form == "parquet", _schema(first), self._outputs, start.output
            )
        form = cast(Format, self._form)
        check(first, form)
        file = File(plan.output, start.output)
        answers = [OutputColumns(spec) for spec in self._outputs]
        return TextSink(file, form, first, self.reading.fields, answers, start.output)


def _is_untouched(ended: Checkpoint, output: Path) -> bool:
    """Whether an output is still what a finished run wrote."""
    return bool(ended.stamp) and ended.stamp == stamp_of(output)


def _schema(first: Any) -> Any:
    """The schema of the rows of a file.

    Raises:
        Invalid: a name cannot be written.
    """
    if isinstance(getattr(first, "reader", None), ArrowReader):
        return first.reader.schema
    arrow = library()
    if not all(map(is_utf8, first.columns or ())):
        raise Invalid("the header is not UTF-8, so it cannot become Parquet or Arrow")
    return arrow.schema([(name, arrow.string()) for name in first.columns or ()])
