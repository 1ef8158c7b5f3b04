"""The odd files that are made by code, and the document that each odd file gives, written by hand."""

import gzip

from llm2comp.corpus.documents import Document, Markup
from tests.corpus.office_files import make_docx, make_epub, make_pdf, paragraph

_TABLE = (
    "<w:tbl>"
    + "".join(
        f"<w:tr>{''.join(f'<w:tc>{paragraph(cell)}</w:tc>' for cell in row)}</w:tr>"
        for row in (("Flour", "Price"), ("rye", "2.10"))
    )
    + "</w:tbl>"
)
_LETTER = (
    paragraph("On flour", "Title"),
    paragraph("Kinds", "heading1"),
    paragraph(
        '<w:r><w:t xml:space="preserve">There is </w:t></w:r><w:r><w:rPr><w:b/></w:rPr><w:t>rye</w:t></w:r>'
        '<w:r><w:footnoteReference w:id="1"/></w:r><w:del><w:r><w:delText>never</w:delText></w:r></w:del>'
    ),
    paragraph("dark", item=True),
    paragraph("light", item=True),
    paragraph("Prices", "heading2"),
    _TABLE,
)
_PROPERTIES = (
    "<dc:creator>Ada</dc:creator><cp:keywords>flour, rye</cp:keywords><dcterms:created>2024-02-03T10:00:00Z"
    "</dcterms:created><dc:title></dc:title>"
)
_CHAPTERS = {
    "one.xhtml": '<?xml version="1.0"?><!DOCTYPE html><html xmlns="http://www.w3.org/1999/xhtml"><head><title/></head>'
    "<body><h1>Flour</h1><p>Ground<br/>grain.</p></body></html>",
    "second%20chapter.xhtml": '<html xmlns="http://www.w3.org/1999/xhtml"><body><section><h1>Water</h1>'
    "<p>It &#8211; flows.</p></section></body></html>",
}
_BOOK = (
    "<dc:title>Bread</dc:title><dc:creator>Ada</dc:creator><dc:creator>Grace</dc:creator><dc:language>en</dc:language>"
)

MADE = {
    "windows.txt": b"\xef\xbb\xbfone\r\n\r\n\ttwo\r\n",
    "packed.md.gz": gzip.compress(b"# Packed\n\nSmall.\n"),
    "latin.html": b"<title>Caf\xe9</title><p>\x84Zur Post\x93</p>",
    "declared.html": '<meta charset="windows-1251"><title>Хлеб</title><p>Мука</p>'.encode("cp1251"),
    "utf16.html": "<title>Wide</title><p>naïve</p>".encode("utf-16"),
    "letter.docx": make_docx("".join(_LETTER), _PROPERTIES),
    "untitled.docx": make_docx(paragraph("Only this.")),
    "bread.epub": make_epub(_CHAPTERS, _BOOK),
    "manual.pdf": make_pdf(
        [["Mix the dough and", "keep it in the re-", "frigerator."], [], ["Bake."]],
        "Baking by hand",
        "/Author (Ada) /CreationDate (D:20240203101112Z)",
    ),
    "draft.pdf": make_pdf([["One line."]], "Microsoft Word - draft.docx"),
    "scan.pdf": make_pdf([[], []], "A scan"),
    "empty.md": b"",
    "blank.txt": b" \n\n",
    "picture.png": b"\x89PNG",
    "Makefile": b"all:",
}
"""Content of files by name, as text would not keep it."""


def _markdown(title: str, text: str, **metadata: object) -> Document:
    return Document("", title, text, metadata, Markup.MARKDOWN)


DOCUMENTS = {
    "plain.txt": Document(
        "",
        "",
        "Dear all,\n\n    this line is indented,\nand 5\u00a0km is one word.\n\n\nTwo blank lines above.\n",
    ),
    "windows.txt": Document("", "", "one\n\n\ttwo\n"),
    "year=2023/entry.txt": Document("", "", "A folder named like a partition is a folder.\n"),
    "packed.md.gz": _markdown("Packed", "Small.\n"),
    "note.md": _markdown(
        "Bread: a history",
        "# How bread came about\n\nGrain, water, *fire*.\n",
        tags=["food", "history"],
        date="2024-02-03",
        author={"name": "Ada", "born": 1815},
        draft=False,
    ),
    "setext.md": _markdown("The oven & its door", "Keep it shut.\n\n## Hinges ##\n\nOil them.\n"),
    "code.md": _markdown(
        "Real heading",
        "```sh\n# not a heading\nmake bread\n```\n\n    # nor this, which is indented\n\n## Real heading ##\n\nText.\n",
    ),
    "rule.md": _markdown("", "---\n\nA text that begins with a rule has no front matter.\n"),
    "values.md": _markdown(
        "2024",
        "A text without a heading.\n",
        count=3,
        ratio=0.5,
        code="007",
        zip="01234",
        none=None,
        when="2024-02-03T10:30:00",
        list=[1, "two", 3.0],
    ),
    "heading.md": _markdown("Only a heading", "# Only a heading\n"),
    "preamble.md": _markdown("Gardens", "Written in spring.\n\n# Gardens\n\nBeds and borders.\n"),
    "languages.md": _markdown(
        "面包的历史", "面包是用面粉做的。它很古老。\n\n## تاريخ الخبز\n\nالخبز قديم جدا. يصنع من الدقيق.\n"
    ),
    "sub/deep note #1.markdown": _markdown("A link in a heading", "Below.\n"),
    "page.html": _markdown(
        "Bread & butter",
        """Butter goes on bread.
Always.

- salted
- unsalted
  1. soft
  2. hard

     from the cold

> Better with butter.
>
> All of it.

Ghee
: clarified butter

A toast and jam""",
        author="Ada",
        description="What goes with bread.",
        language="en",
    ),
    "table.html": _markdown(
        "Prices",
        """In euros

| Bread | Small | Large |
| --- | --- | --- |
| Rye \\| dark | 2.10 | 3.80 |
|  | 2.20 | - 3.90 - or 4.00 |
| Wheat | sold out |  |""",
    ),
    "code.html": _markdown(
        "Shell",
        """\\# is no heading here
\\---
and `a_b` is code, `` x `y` `` too

## C \\#

````python
# a comment
if x:
    print("```")
````

```sh
$ ls
```""",
    ),
    "untidy.html": _markdown(
        "Soup", "Boil water\n\nAdd salt & pepper – a lot\n\n- one\n- two\n\n## Left\n\none\n\ntwo"
    ),
    "book.xhtml": _markdown("Brot", "Mehl & Wasser\nund Zeit.", language="de"),
    "latin.html": _markdown("Café", "„Zur Post“"),
    "declared.html": _markdown("Хлеб", "Мука"),
    "utf16.html": _markdown("Wide", "naïve"),
    "manual.rst": _markdown(
        "Baking",
        """Knead with `force` and patience, see `ovens` and `oven.heat`.

Note

Flour burns.

## Steps

1. Mix.
2. Wait.

```python
# an oven
heat(230)
```

3.1 Steam.

| Flour | Time |
| --- | --- |
| rye | 40 |""",
        author="Ada",
        version="3",
    ),
    "changes.rst": _markdown(
        "Version 2",
        """- Crust.

## Version 1

Broken:

```
==== ====
a  b  c
== ==
```

```
.. include:: /etc/passwd
```""",
    ),
    "letter.docx": _markdown(
        "On flour",
        """# Kinds

There is rye[1]

- dark
- light

## Prices

| Flour | Price |
| --- | --- |
| rye | 2.10 |

1. Stone ground.""",
        author="Ada",
        keywords="flour, rye",
        created="2024-02-03",
    ),
    "untitled.docx": _markdown("untitled", "Only this."),
    "bread.epub": _markdown(
        "Bread", "# Flour\n\nGround\ngrain.\n\n# Water\n\nIt – flows.", author="Ada, Grace", language="en"
    ),
    "manual.pdf": Document(
        "",
        "Baking by hand",
        "Mix the dough and\nkeep it in the re-\nfrigerator.\n\nBake.",
        {"author": "Ada", "created": "2024-02-03"},
        pages=(0, 50, 50),
    ),
    "draft.pdf": Document("", "draft", "One line.", {}, pages=(0,)),
}
"""Documents by path, without ids and without the metadata that all files have."""
