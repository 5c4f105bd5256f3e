"""Decodes a plain request: its JSON, and what its path, query and headers say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import override

from penstock.core.errors import InvalidRequest
from penstock.core.names import listed
from penstock.models.model import Model
from penstock.protocols.codec import Contents, Decoded, SequenceStep, attached
from penstock.protocols.rest.errors import AT_ONCE, not_too_deep, parsed
from penstock.protocols.rest.forms import Inputs
from penstock.protocols.rest.pieces import let_go
from penstock.protocols.sequence_ids import BY_ID_ONLY, SEQUENCES_KEY, check_words, has_own_sequence
from penstock.protocols.tensors import wanted_outputs
from penstock.transport.http.call import REQUEST_ID, HttpCall

MODEL, VERSION = "model", "version"
"""The parameters of paths."""

PRIORITY = "penstock-priority"
SEQUENCE_ID, SEQUENCE_START, SEQUENCE_END = (f"penstock-sequence-{name}" for name in ("id", "start", "end"))
OUTPUTS = "outputs"
"""The query parameter with the wanted outputs, separated by commas."""

LINES = (
    "records on lines go to /predict/{model}/stream, and curl sends lines with --data-binary (-d joins the "
    "lines of a file)"
)
"""What to do with several records after each other."""
BODY, LINE = "the body", "the line"
"""What JSON came as, for messages."""

SEQUENCE_HEADERS = (SEQUENCE_ID, SEQUENCE_START, SEQUENCE_END)

INT32 = 2**31
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


class HttpDecoded(Decoded):
    """A request whose model is named by its path.

    Args:
        body: its JSON.
        size: the size of the body in bytes.

    Attributes:
        body: as given.
        call: the call that it came by.
    """

    __slots__ = ("body", "call")

    call: HttpCall

    def __init__(self, body: Any, size: int) -> None:
        super().__init__("", "", "", 0, size)
        self.body = body

    def came_by(self, call: HttpCall) -> None:
        """Takes what the call says about it.

        Raises:
            InvalidRequest: a header is malformed.
        """
        self.call = call
        self.model = call.parameters[MODEL]
        self.version = call.parameters.get(VERSION, "")
        self.id = call.headers.get(REQUEST_ID, "")

    def let_go(self) -> None:
        """Frees its JSON, once its inputs have been read; bit by bit if it is large."""
        if self.size > AT_ONCE:
            let_go(self.body)


class DecodedRecords(HttpDecoded):
    """A plain request; see `HttpDecoded` for the arguments.

    Attributes:
        what: what its JSON came as.
    """

    __slots__ = ()
    what = BODY

    @override
    @not_too_deep
    def contents(self, model: Model) -> Contents:
        inputs, form = attached(model, Inputs).read(self.body, self.what)
        outputs: Sequence[str] = model.output_names
        if self.call.has_query:
            values = self.call.query.get(OUTPUTS, ())
            wanted = [each.strip() for value in values for each in value.split(",")]
            if "" in wanted:
                raise InvalidRequest(f"{OUTPUTS} has an empty name; {model} has {listed(model.output_names)}")
            outputs = wanted_outputs(model, wanted) if wanted else outputs
        priority = _priority(self.call.headers)
        return Contents(inputs, outputs, form, priority=priority, sequence=self._sequence(model))

    def _sequence(self, model: Model) -> SequenceStep | None:
        headers = self.call.headers
        if headers.keys().isdisjoint(SEQUENCE_HEADERS):
            return None
        if model.sequence_state is None:
            raise InvalidRequest(f"the request names a sequence, but {model} has no state")
        return SequenceStep(
            headers.get(SEQUENCE_ID, ""), _boolean(headers, SEQUENCE_START), _boolean(headers, SEQUENCE_END)
        )


class DecodedLine(DecodedRecords):
    """A plain request on a line of a stream; see `HttpDecoded` for the arguments."""

    __slots__ = ()
    what = LINE


def check_query(call: HttpCall) -> None:
    """Checks the query of a plain request.

    Raises:
        InvalidRequest: it has a parameter that does not exist.
    """
    if not call.has_query:
        return
    unknown = call.query.keys() - {OUTPUTS}
    if unknown:
        names = ", ".join(sorted(unknown))
        raise InvalidRequest(f"there is no query parameter {names[:200]}, only {OUTPUTS}")


def check_sequences(headers: Mapping[str, str]) -> None:
    """Checks the header `Penstock-Sequences` of a request.

    Raises:
        InvalidRequest: it has a word that means nothing.
    """
    if SEQUENCES_KEY in headers:
        check_words(headers[SEQUENCES_KEY])


def check_stream(call: HttpCall) -> None:
    """Checks what the head of a stream says about all of its lines.

    Raises:
        InvalidRequest: a parameter or a header does not exist, or has no meaning on a stream.
    """
    check_query(call)
    check_sequences(call.headers)
    _priority(call.headers)
    wrong = [name for name in SEQUENCE_HEADERS if name in call.headers]
    if not has_own_sequence(call.metadata):
        wrong.append(f"{SEQUENCES_KEY}: {BY_ID_ONLY}")
    if wrong:
        raise InvalidRequest(
            f"header {wrong[0]} cannot be used here: a stream's lines are steps of its own sequence; send "
            "steps of a sequence with an id to /predict/{model}"
        )


def decode(data: bytes) -> HttpDecoded:
    """The request in a body.

    Raises:
        InvalidRequest: it is not JSON.
    """
    return DecodedRecords(parsed(data, LINES), len(data))


def decode_line(data: bytes) -> HttpDecoded:
    """The request on a line of a stream.

    Raises:
        InvalidRequest: it is not JSON.
    """
    return DecodedLine(parsed(data, LINES, LINE), len(data))


def _priority(headers: Mapping[str, str]) -> int:
    text = headers.get(PRIORITY)
    if text is None:
        return 0
    try:
        number = int(text)
    except ValueError:
        number = INT32
    if not -INT32 <= number < INT32:
        raise InvalidRequest(f"header {PRIORITY} is {text[:100]!r}, expected an integer of 32 bits")
    return number


def _boolean(headers: Any, name: str) -> bool:
    text = headers.get(name, "false")
    if text.lower() not in _BOOLEANS:
        raise InvalidRequest(f"header {name} is {text[:100]!r}, expected true or false")
    return _BOOLEANS[text.lower()]
