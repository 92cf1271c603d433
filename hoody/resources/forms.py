"""A sender that is a form: its first file is the stream."""

from __future__ import annotations

from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from hoody.errors import CallerError, FormHadNoFile
from hoody.pipes.heads import Head, safe_filename, safe_type
from hoody.protocols.request import BODY_LIMIT, Request
from hoody.resources.parties import Sender

TEXT_FIELD = "hoody-text"
"""A field that is sent on as if it were a file: browsers make no file of what is typed."""

_TYPED = "text/plain; charset=utf-8"
_NO_FILE = (
    'The form has no file; send one with a part that has a filename, as curl -F "file=@NAME" does.'
)


class FormSender(Sender):
    """
    Reads a form up to its first file, holds it there, and sends that on; what
    is before and behind is read and dropped.
    """

    def __init__(self, request: Request, wanted: int, head: Head) -> None:
        """@param head: what the form itself says; the file's part says the rest."""
        super().__init__(request, wanted, None)
        self.wire = None
        self._outer = head
        self._in_file = False
        content_type = request.getHeader(b"content-type") or b""
        _, options = parse_options_header(content_type.decode("latin-1"))
        try:
            self._parser = PushMultipartParser(options.get("boundary", ""))
        except MultipartError:
            raise CallerError(
                "Content-Type: multipart/form-data needs a boundary; send the one that the"
                " parts are divided by."
            ) from None

    def seek(self) -> None:
        """Have the client begin, so that the file is found."""
        if self.head is None:
            self.request.send_continue()

    def dataReceived(self, data: bytes) -> None:
        try:
            for event in self._parser.parse(data):
                self._take(event)
        except MultipartError as error:
            self._fail(CallerError(f"The form is malformed ({error}); send multipart/form-data."))
        if self.head is None and self.request.received > BODY_LIMIT:
            self._fail(FormHadNoFile("The form has over 1 MiB before its file; put it first."))

    def bodyComplete(self) -> None:
        if self.head is None:
            self._fail(FormHadNoFile(_NO_FILE))
        elif not self._body_ended:
            self._fail(CallerError("The form ends within its file; send all of it."))
        super().bodyComplete()

    def _take(self, event: MultipartSegment | bytearray | bytes | None) -> None:
        if isinstance(event, MultipartSegment):
            if self.head is None and (event.filename is not None or event.name == TEXT_FIELD):
                self._find(event)
        elif event is None:
            if self._in_file:
                self._in_file = False
                self._end_body()
        elif self._in_file:
            self._produce(bytes(event))

    def _find(self, part: MultipartSegment) -> None:
        is_file = part.filename is not None
        content_type: str | None = part.header("Content-Type") if is_file else _TYPED
        self.head = Head(
            content_type=safe_type(content_type.encode("latin-1", "replace"))
            if content_type
            else None,
            expected=self._outer.expected,
            passed=self._outer.passed,
            disposition="attachment" if is_file else None,
            filename=safe_filename(part.filename or ""),
            digest=self._outer.digest,
        )
        self._in_file = True
        self.hold_back()
        self.transfer.head_known()

    def _fail(self, error: CallerError) -> None:
        if self.head is None:
            self.transfer.form_fails(error)
        else:
            self.transfer.leaves(self, error)
            self.fail(error)
