"""How CSV and TSV files are read where the files themselves do not say it, or say it wrongly."""

from dataclasses import dataclass

__all__ = ["TableFormat"]


@dataclass(frozen=True, slots=True)
class TableFormat:
    """What the user says about the .csv and .tsv files of a corpus.

    Attributes:
        header: Whether the first line has the column names; None: if it has known ones.
        quotes: Whether fields may be enclosed in quotes; None: in CSV they may, in TSV if the file shows it.
    """

    header: bool | None = None
    quotes: bool | None = None
