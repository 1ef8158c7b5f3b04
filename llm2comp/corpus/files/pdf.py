"""The text of PDF files, page by page, as PDFium finds it."""

import re
from datetime import datetime
from threading import Lock
from typing import Any

from llm2comp.corpus.files.content import FileContent
from llm2comp.errors import CorpusError, one_line
from llm2comp.optional import optional_import

__all__ = ["read_pdf"]

_LOCK = Lock()  # PDFium is not thread-safe
_WRONG_PASSWORD = 4  # FPDF_ERR_PASSWORD
_HYPHEN = re.compile("[\ufffe\x02]")  # PDFium's mark of a hyphen at a line's end, in place of hyphen and line break
_NO_TITLE = re.compile(r"(?i)untitled|microsoft word - .*|.*\.(?:docx?|tex|dvi|indd|pdf|qxd|rtf|odt|pptx?)")
_DATE = re.compile(r"D:(\d{4})(\d\d)?(\d\d)?(\d\d)?(\d\d)?(\d\d)?")
_FIELDS = {"Author": "author", "Subject": "subject", "Keywords": "keywords"}


def read_pdf(data: bytes) -> FileContent:
    """Text of all pages, with a blank line between two, and where each of them begins.

    Lines end as on the page, and hyphens at their ends stay. The title is that of the file's metadata, unless a program
    put the name of a file there.

    Raises:
        ValueError: The file is damaged or protected by a password.
        CorpusError: pypdfium2 is not installed.
    """
    pdfium = optional_import("pypdfium2", extra="files", needed_by="PDF", error_type=CorpusError)
    with _LOCK:
        try:
            document = pdfium.PdfDocument(data)
        except pdfium.PdfiumError as error:
            if getattr(error, "err_code", None) == _WRONG_PASSWORD:
                raise ValueError("protected by a password; save it without one") from None
            raise ValueError(f"not a readable PDF file ({one_line(error)})") from None
        try:
            pages = [_read_page(document, number) for number in range(len(document))]
            fields = document.get_metadata_dict(skip_empty=True)
        except pdfium.PdfiumError as error:
            raise ValueError(f"a damaged PDF file ({one_line(error)})") from None
        finally:
            document.close()
    text, starts = _join(pages)
    title = _clean(fields.get("Title", ""))
    metadata = {name: value for key, name in _FIELDS.items() if (value := _clean(fields.get(key, "")))}
    if created := _parse_date(fields.get("CreationDate", "")):
        metadata["created"] = created
    return FileContent("" if _NO_TITLE.fullmatch(title) else title, text, metadata, pages=starts)


def _read_page(document: Any, number: int) -> str:
    page = document[number]
    textpage = page.get_textpage()
    text: str = textpage.get_text_range()
    textpage.close()
    page.close()
    return _HYPHEN.sub("-\n", text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")).strip()


def _join(pages: list[str]) -> tuple[str, tuple[int, ...]]:
    """The text, and the offset of each page; an empty page begins where the next one does."""
    text, starts = "", []
    parts: list[str] = []
    length = 0
    for page in pages:
        starts.append(length)
        if page:
            parts.append(page)
            length += len(page) + 2
    text = "\n\n".join(parts)
    return text, tuple(min(start, len(text)) for start in starts)


def _clean(value: str) -> str:
    return " ".join(value.replace("\0", "").split())


def _parse_date(value: str) -> str:
    """The date of `D:20240131…` as `2024-01-31`; empty if it is none."""
    match = _DATE.match(value)
    if match is None:
        return ""
    year, month, day, *_ = (int(part or 1) for part in match.groups())
    try:
        return datetime(year, month, day).date().isoformat()
    except ValueError:
        return ""
