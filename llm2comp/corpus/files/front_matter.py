"""Front matter: the fields at the head of a Markdown file, as YAML between two lines of `---` or as TOML between `+++`.

Plain values of YAML are read as YAML 1.2 says, and dates as YAML 1.1: `no` and `10:30` are texts, and so is `01234`,
which YAML 1.1 would take for 668.
"""

import re
import tomllib
from functools import cache
from typing import Any

__all__ = ["is_unfinished", "split_front_matter"]

_VALUES = (  # tag, texts, first characters
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*(?:[eE][-+]?[0-9]+)?|[eE][-+]?[0-9]+)|\.[0-9]+|\.inf)|\.nan",
        "-+.0123456789",
    ),
    (
        "timestamp",
        r"\d{4}-\d\d-\d\d(?:(?:[Tt]|[ \t]+)\d\d?:\d\d:\d\d(?:\.\d*)?(?:[ \t]*(?:Z|[-+]\d\d?(?::\d\d)?))?)?",
        "0123456789",
    ),
)
_END = r"(?:---|\.\.\.)[ \t]*(?:\n|\Z)"
_TOML_END = r"\+\+\+[ \t]*(?:\n|\Z)"
_FRONT_MATTER = re.compile(
    rf"---[ \t]*\n(?P<yaml>(?:(?!{_END}).*\n)*){_END}|\+\+\+[ \t]*\n(?P<toml>(?:(?!{_TOML_END}).*\n)*){_TOML_END}"
)
_OPEN = re.compile(r"(?:---[ \t]*\n[\w-]+[ \t]*:|\+\+\+[ \t]*\n(?:[\w.-]+[ \t]*=|\[))")
_TOML_LINE = re.compile(r"\(at line ([0-9]+), column [0-9]+\)")


def split_front_matter(text: str) -> tuple[dict[str, Any], str]:
    """The fields of the front matter and the text after it; no fields and the whole text if it has none.

    Raises:
        ValueError: The front matter is no mapping, not YAML or not TOML, has a key twice in one mapping, or has
            aliases, which can expand without limit.
    """
    match = _FRONT_MATTER.match(text)
    if match is None:
        return {}, text
    fields = _parse(match["yaml"]) if match["yaml"] is not None else _parse_toml(match["toml"])
    if not isinstance(fields, dict):
        kind = {"list": "list", "str": "text"}.get(type(fields).__name__, "single value")
        raise ValueError(
            f"the front matter is a {kind}, expected lines of `name: value` between two lines of ---; begin the file "
            "with a blank line if it has no front matter"
        )
    return {str(name): value for name, value in fields.items()}, text[match.end() :].lstrip("\n")


def is_unfinished(text: str) -> bool:
    """Whether the text begins as front matter does, which has no end."""
    return _OPEN.match(text) is not None and _FRONT_MATTER.match(text) is None


def _parse_toml(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        fault = _TOML_LINE.sub(lambda place: f"in line {int(place[1]) + 1}", str(error))
        raise ValueError(f"the front matter is not TOML: {fault}") from None
    except RecursionError:
        raise ValueError("the front matter is nested too deeply") from None


def _parse(text: str) -> Any:
    import yaml

    loader = _loader()
    try:
        aliases = "*" in text and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=loader))
        fields = None if aliases else yaml.load(text, Loader=loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 2 if error.problem_mark else 1
        raise ValueError(f"the front matter is not YAML: line {line}: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError) as error:  # a character that YAML does not allow
        raise ValueError(f"the front matter is not YAML: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise ValueError("the front matter is nested too deeply") from None
    if aliases:
        raise ValueError("the front matter has YAML aliases (*name), which are not read; write the values out")
    return {} if fields is None else fields


@cache
def _loader() -> Any:
    """Class of a loader of plain values, to which a key that stands twice in one mapping is an error."""
    import yaml

    def construct_mapping(self: Any, node: Any, deep: bool = False) -> dict[Any, Any]:
        fields: dict[Any, Any] = yaml.SafeLoader.construct_mapping(self, node, deep)
        names = set[str]()  # metadata has texts as names: 1 and "1" are the same
        for key, _ in node.value:
            name = str(self.construct_object(key, deep=True))
            if name in names:
                problem = f"the key {name!r:.60} stands twice in one mapping, expected it once"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            names.add(name)
        return fields

    def construct_timestamp(self: Any, node: Any) -> Any:
        try:
            return yaml.SafeLoader.construct_yaml_timestamp(self, node)
        except ValueError:  # no date, such as 2024-02-30: text, as in columns of CSV
            return node.value

    fastest: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # compiled where it is, ten times as fast
    loader: Any = type(
        "FrontMatterLoader", (fastest,), {"yaml_implicit_resolvers": {}, "construct_mapping": construct_mapping}
    )
    loader.add_constructor("tag:yaml.org,2002:timestamp", construct_timestamp)
    for tag, texts, first in _VALUES:
        loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(rf"(?:{texts})\Z"), first)
    return loader
