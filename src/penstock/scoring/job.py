"""One run over files: where it begins, what it writes, and what it tells whoever watches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any, cast

from penstock.row_files.fields import Invalid
from penstock.row_files.readers import Format
from penstock.scoring.arrow_files import ArrowReader, library
from penstock.scoring.checkpoint import Checkpoint, difference, load
from penstock.scoring.chunk import Chunk, Scored
from penstock.scoring.outputs import OutputColumns
from penstock.scoring.reading import Reading
from penstock.scoring.run import Stopping, run
from penstock.scoring.sending import Request, Sender, rows_of_requests
from penstock.scoring.sinks import ArrowSink, File, RejectsSink, Sink, TextSink
from penstock.scoring.sources import BINARY, FileFormat, Source, format_of
from penstock.scoring.writers import check
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
        return self.output.with_name(f"{self.output.name}.checkpoint")


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
        reading: the files.
        stopping: set it to end the run after the chunk that is being written.

    Raises:
        Invalid: a file cannot be used, or the checkpoint is of another run.
        OSError: a file cannot be opened.
    """

    def __init__(
        self, plan: Plan, client: Client, info: ModelInfo, on_waiting: Callable[[PenstockError | None], None]
    ) -> None:
        self.stopping = Stopping()
        self._plan = plan
        self._rows = rows_of_requests(info)
        self.reading = Reading(plan.sources, info, self._rows)
        try:
            self._begin(client, info, on_waiting)
        except BaseException:
            self.reading.close()
            raise

    def _begin(
        self, client: Client, info: ModelInfo, on_waiting: Callable[[PenstockError | None], None]
    ) -> None:
        plan = self._plan
        self._form = plan.format or (format_of(str(plan.output)) if plan.output else None)
        self._form = self._form or self.reading.first.format
        wanted = plan.request.outputs
        self._outputs = [spec for spec in info.outputs if wanted is None or spec.name in wanted]
        start = self._start(info)
        # All rows by one version, whatever becomes the default on the way.
        request = replace(plan.request, version=start.version)
        self._sender = Sender(client, request, on_waiting, self.stopping)
        self._saved = start
        self.done = self.resumed = start.rows
        self.rejected = start.rejected
        self._sink = self._open_sink(start)
        self._rejects = RejectsSink(plan.rejects, start.rejects)
        self._save_at = monotonic() + self._plan.save_seconds

    def run(self) -> None:
        """Scores all rows that are not done. However it ends, the checkpoint says how far it came.

        Raises:
            Invalid: a file cannot be used.
            PenstockError: the run cannot go on.
            OSError: a file cannot be read or written.
        """
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
        errors = self._sink.write(chunk, scored)
        if errors:
            rows = chunk.rows()
            for place in sorted(errors):
                self._rejects.write(rows[place], self.done + place + 1, source, errors[place])
        self.done += len(chunk)
        self.rejected += len(errors)
        if monotonic() >= self._save_at:
            self._save()

    def _save(self) -> None:
        path = self._plan.checkpoint
        if path is not None and self._saved.rows != self.done:
            rejects, output = self._rejects.position(), self._sink.position()
            self._saved = replace(
                self._saved, rows=self.done, rejected=self.rejected, output=output, rejects=rejects
            )
            self._saved.save(path)
        self._save_at = monotonic() + self._plan.save_seconds

    def _finish(self) -> None:
        self._rejects.position()
        self._sink.finish()
        if self._plan.checkpoint is not None:
            self._plan.checkpoint.unlink(missing_ok=True)
        self._is_finished = True

    _is_finished = False

    def _leave(self) -> None:
        if not self._is_finished:
            try:
                self._save()
            finally:
                self._sink.close()
        self._rejects.close()
        self.reading.close()

    def _start(self, info: ModelInfo) -> Checkpoint:
        """Where the run begins.

        Raises:
            Invalid: there is a checkpoint of another run, or an output that nothing says can be replaced.
        """
        plan, path = self._plan, self._plan.checkpoint
        job: dict[str, Any] = {
            "model": plan.request.model,
            "input": [[each.name, each.stamp] for each in plan.sources],
            "format": self._form,
            "outputs": [spec.name for spec in self._outputs],
        }
        found = None if path is None or plan.restart else load(path)
        if found is None:
            output = plan.output
            if output is not None and output.is_file() and output.stat().st_size and not plan.restart:
                raise Invalid(
                    f"{output} exists, and no checkpoint beside it says how to go on; --restart replaces it"
                )
            return Checkpoint(job, version=info.version)
        differs = difference(found.job, job)
        if differs:
            raise Invalid(f"{path} is of another run: {differs}; --restart begins again")
        return found

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


def _schema(first: Any) -> Any:
    if isinstance(getattr(first, "reader", None), ArrowReader):
        return first.reader.schema
    arrow = library()
    return arrow.schema([(name, arrow.string()) for name in first.columns or ()])
