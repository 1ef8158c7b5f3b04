"""Zip archives of XML, which DOCX and EPUB are: read within limits, and without what expands without end."""

import io
import zipfile
import zlib
from xml.etree import ElementTree
from xml.parsers import expat

__all__ = ["TextArchive", "parse_xml"]

_MOST_BYTES = 64 * 2**20  # of text in one archive: sixty novels
_MOST_RATIO = 200  # of a part of more than a mebibyte; text shrinks to a tenth, repeated tables to a hundredth
_RATIO_BYTES = 2**20
_OLE = b"\xd0\xcf\x11\xe0"  # what Office writes documents with a password in, and those before 2007


class TextArchive:
    """The texts of a zip archive.

    Args:
        data: The archive.
        suffix: Of the file, for messages.

    Attributes:
        names: Names of all parts.

    Raises:
        ValueError: It is no zip archive.
    """

    def __init__(self, data: bytes, suffix: str) -> None:
        if data.startswith(_OLE):
            raise ValueError(f"protected by a password, or an old Office file that is no {suffix}; save it without one")
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
        except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
            raise ValueError(f"not a readable {suffix} file ({error})") from None
        self.names = frozenset(self._zip.namelist())
        self._suffix, self._left = suffix, _MOST_BYTES

    def read(self, name: str) -> bytes:
        """The bytes of a part.

        Raises:
            ValueError: There is none of the name, it is damaged or protected by a password, or the parts read so far
                expand beyond the limits.
        """
        try:
            part = self._zip.getinfo(name)
        except KeyError:
            raise ValueError(f"a damaged {self._suffix} file: it has no {name}") from None
        if part.flag_bits & 1:
            raise ValueError("protected by a password; save it without one")
        self._left -= part.file_size
        expands = part.file_size > _RATIO_BYTES and part.file_size > _MOST_RATIO * part.compress_size
        if expands or self._left < 0:
            limit = f"{_MOST_RATIO} times its size" if expands else f"{_MOST_BYTES // 2**20} MiB of text"
            raise ValueError(f"expands to more than {limit}, as a zip bomb does; split the document if it is none")
        try:
            return self._zip.read(part)  # never more than the size that it states
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
            raise ValueError(f"a damaged {self._suffix} file ({error})") from None

    def read_xml(self, name: str) -> bytes:
        """The bytes of a part of XML, without declarations of entities.

        Raises:
            ValueError: As `read`, or it declares entities, or is no XML.
        """
        data = self.read(name)
        _check_prolog(data, name)
        return data


def parse_xml(archive: TextArchive, name: str) -> ElementTree.Element:
    """The root of a part of XML.

    Raises:
        ValueError: As `TextArchive.read_xml`.
    """
    try:
        return ElementTree.fromstring(archive.read_xml(name))
    except ElementTree.ParseError as error:
        raise ValueError(f"{name} in it is not XML ({error})") from None


class _RootReachedError(Exception):
    pass


def _check_prolog(data: bytes, name: str) -> None:
    """Checks what stands before the root element, the only place where entities are declared."""

    def refuse(*_: object) -> None:
        raise ValueError(f"{name} in it declares entities, as XML bombs do; documents need none")

    def stop(*_: object) -> None:
        raise _RootReachedError

    parser = expat.ParserCreate()
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = stop
    try:
        parser.Parse(data, True)
    except _RootReachedError:
        pass
    except expat.ExpatError as error:
        raise ValueError(f"{name} in it is not XML ({error})") from None
