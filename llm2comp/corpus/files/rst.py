"""reStructuredText as Markdown, with its title and the fields at its head as metadata."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

from llm2comp.corpus.documents import Markup
from llm2comp.corpus.files.content import FileContent, decode_utf8
from llm2comp.corpus.files.html import parse_html, to_text
from llm2comp.corpus.files.markdown import without_title
from llm2comp.errors import CorpusError, one_line
from llm2comp.optional import optional_import

__all__ = ["read_rst"]

_LOCK = Lock()  # two functions of docutils are replaced while a document is read
_LINE_CHARACTERS = 10_000  # docutils takes time in the square of them, and leaves longer lines out
_SETTINGS = {
    "_disable_config": True,
    "embed_stylesheet": False,
    "file_insertion_enabled": False,
    "halt_level": 5,  # no message is an error
    "input_encoding": "unicode",
    "line_length_limit": _LINE_CHARACTERS,
    "math_output": "LaTeX",
    "output_encoding": "unicode",
    "report_level": 2,  # messages stay in the tree, for they hold the source that docutils could not read
    "syntax_highlight": "none",
    "warning_stream": False,
}
_WITHOUT_TEXT = frozenset({"toctree", "index", "highlight", "currentmodule", "default-domain", "tabularcolumns"})
_CODE = frozenset({"doctest", "testcode", "testoutput", "testsetup", "ipython", "prompt", "productionlist"})
_ROLE_TARGET = re.compile(r"(?s)(.*?)\s*<[^<>]*>|[!~]?(.*)")


def read_rst(data: bytes) -> FileContent:
    """Content of a document; roles and directives that only Sphinx knows give their text.

    Nothing is included from other files.

    Raises:
        ValueError: It is not UTF-8, has a line that is too long, or docutils fails at it.
        CorpusError: docutils is not installed.
    """
    core = optional_import("docutils.core", extra="files", needed_by="RST", error_type=CorpusError)
    source = decode_utf8(data)
    for number, line in enumerate(source.split("\n"), start=1):
        if len(line) > _LINE_CHARACTERS:
            raise ValueError(
                f"line {number} has more than {_LINE_CHARACTERS:,} characters, more than docutils reads; break it"
            )
    try:
        with _lenient():
            tree = core.publish_doctree(source, settings_overrides=_SETTINGS)
            _prepare(tree)
            title, fields = _find_title(tree), _take_fields(tree)
            page = core.publish_from_doctree(tree, writer="html5", settings_overrides=_SETTINGS)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except Exception as error:  # malformed tables and options make docutils raise errors of any type
        raise ValueError(f"docutils fails at it ({type(error).__name__}: {one_line(error)})") from None
    return FileContent(title, without_title(title, to_text(parse_html(page))), fields, Markup.MARKDOWN)


def _prepare(tree: Any) -> None:
    """Puts source that docutils could not read, such as a malformed table, in place of the message about it."""
    from docutils import nodes

    for literal in tree.findall(nodes.literal):
        literal["classes"].append("code")  # which the writer makes a code element of
    for message in list(tree.findall(nodes.system_message)):
        message.parent.replace(message, list(message.findall(nodes.literal_block)))
    tree.parse_messages, tree.transform_messages = [], []
    for image in tree.findall(nodes.image):
        image.setdefault("alt", "")  # not its path


def _find_title(tree: Any) -> str:
    """The title of the document or of its first section."""
    from docutils import nodes

    title = next(iter(tree.findall(nodes.title)), None)
    return " ".join(title.astext().split()) if title is not None else ""


def _take_fields(tree: Any) -> dict[str, str]:
    """The fields at the head of the document, which are taken out of it."""
    from docutils import nodes

    fields = {}
    for head in list(tree.findall(nodes.docinfo)):
        for field in head.children:
            name, value = (
                (part.astext() for part in field.children)
                if isinstance(field, nodes.field)
                else (field.tagname, field.astext())
            )
            fields[" ".join(name.lower().split())] = " ".join(value.split())
        head.parent.remove(head)
    return fields


@contextmanager
def _lenient() -> Iterator[None]:
    """Lets docutils read roles and directives that it does not know, as Sphinx adds its own."""
    from docutils.parsers.rst import directives, roles

    known_directive, known_role = directives.directive, roles.role

    def find_directive(name: str, language: Any, document: Any) -> tuple[Any, list[Any]]:
        directive, messages = known_directive(name, language, document)
        return (directive, messages) if directive is not None else (_make_directive(name), [])

    def find_role(name: str, language: Any, line: int, reporter: Any) -> tuple[Any, list[Any]]:
        role, messages = known_role(name, language, line, reporter)
        return (role, messages) if role is not None else (_read_role, [])

    with _LOCK:
        directives.directive, roles.role = find_directive, find_role
        try:
            yield
        finally:
            directives.directive, roles.role = known_directive, known_role


def _read_role(
    name: str, raw: str, text: str, line: int, inliner: Any, options: Any = None, content: Any = None
) -> tuple[list[Any], list[Any]]:
    r"""The text of an unknown role: the name before `<target>`, without the `~` and `!` of Sphinx."""
    from docutils import nodes, utils

    match = _ROLE_TARGET.fullmatch(utils.unescape(text))
    label = (match[1] or match[2] or text) if match else text
    return [nodes.literal(raw, label)], []


class _AnyOptions(dict[str, Any]):
    """Options of a directive, which may have any."""

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, name: str) -> Any:
        return str


def _make_directive(name: str) -> Any:
    """Class of a directive that gives its argument as a paragraph, and its content parsed or as code."""
    from docutils import nodes
    from docutils.parsers.rst import Directive

    class AnyDirective(Directive):  # type: ignore[misc]  # docutils has no types
        optional_arguments = 1
        final_argument_whitespace = True
        option_spec = _AnyOptions()
        has_content = True

        def run(self) -> list[Any]:
            if name in _WITHOUT_TEXT:
                return []
            content = nodes.Element()
            if name in _CODE:
                content += nodes.literal_block("", "\n".join(self.content))
            else:
                self.state.nested_parse(self.content, self.content_offset, content)
            return [*(nodes.paragraph("", line) for line in self.arguments), *content.children]

    return AnyDirective
