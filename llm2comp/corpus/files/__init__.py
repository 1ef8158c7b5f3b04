"""Readers of files whose whole content is one document: texts, Markdown, RST, HTML, PDF, DOCX and EPUB.

What has structure becomes Markdown, so that all kinds are cut at headings in the same way. The libraries of the extra
`files`, and why these:

- selectolax (MIT, no dependencies): an HTML5 parser, which repairs what pages leave open, in C. The Markdown is ours
  (`markdown_writer`), without escapes, links and emphasis that an encoder would read as text.
- mammoth (BSD, one small dependency): DOCX to HTML by styles, with lists, tables and footnotes. python-docx leaves
  these to the caller and needs lxml.
- docutils (public domain and BSD, no dependencies): the reference parser of RST, whose HTML is read like any other.
- pypdfium2 (BSD and Apache, no dependencies): the text of PDF pages as Chrome finds it, encrypted files without a
  password too. On two manuals, pypdf gave the same text in eleven to thirteen times the processor time.
- EPUB is a zip archive of HTML (`epub`); ebooklib is under the AGPL.
- markitdown stands on the same libraries or on lxml and pdfminer, gives no pages, and always brings an ONNX runtime.

Nothing is fetched, executed or unpickled; archives and XML have limits (`archive`). Imports the modules beside
`llm2comp.corpus.files` that read bytes and describe documents (`text`, `encoding`, `documents`, `scalars`, `report`),
and none that knows folders, tables or sources.
"""
