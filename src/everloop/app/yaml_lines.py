"""YAML as plain values plus the line of every key, so that errors can name lines.

Only what JSON can say is accepted: no tags, anchors or duplicate keys, and bounded depth and size.
"""

from __future__ import annotations

from dataclasses import dataclass

import yaml

from everloop.core.errors import InvalidInput

MAX_BYTES = 1_000_000
MAX_DEPTH = 32
_SCALAR_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null")}
_TIMESTAMP = "tag:yaml.org,2002:timestamp"

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed document.

    Attributes:
        value: Plain builtins.
        lines: Line number, from 1, of each key and item, by path.
    """

    value: object
    lines: dict[Path, int]

    def line(self, path: Path) -> int:
        """Return the line of the path, or of its nearest parent that has one."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def parse_yaml(text: str, name: str) -> Document:
    """Read a document.

    Raises:
        InvalidInput: ``yaml.invalid``, with file name and line.
    """
    if len(text) > MAX_BYTES:
        raise _invalid(name, 1, f"the file is larger than {MAX_BYTES:,} bytes")
    try:
        loader = yaml.SafeLoader(text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _invalid(name, line, "it holds a character that is not printable") from error
    try:
        _refuse_anchors(text, name)
        node = loader.get_single_node()
        lines: dict[Path, int] = {(): 1}
        value = None if node is None else _plain(loader, node, (), lines, name)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise _invalid(name, line, error.problem or "it is not YAML") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise _invalid(name, 1, (str(error).splitlines() or ["it is not YAML"])[0]) from error
    finally:
        loader.dispose()
    return Document(value, lines)


def _refuse_anchors(text: str, name: str) -> None:
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            line = event.start_mark.line + 1 if event.start_mark else 1
            raise _invalid(name, line, "anchors and aliases are not accepted")


def _plain(
    loader: yaml.SafeLoader, node: yaml.Node, path: Path, lines: dict[Path, int], name: str
) -> object:
    line = node.start_mark.line + 1
    lines.setdefault(path, line)
    if len(path) > MAX_DEPTH:
        raise _invalid(name, line, f"it nests deeper than {MAX_DEPTH}")
    if isinstance(node, yaml.MappingNode):
        return _mapping(loader, node, path, lines, name)
    if isinstance(node, yaml.SequenceNode):
        return [
            _plain(loader, item, (*path, index), lines, name)
            for index, item in enumerate(node.value)
        ]
    if node.tag == _TIMESTAMP:
        return node.value
    if node.tag not in _SCALAR_TAGS:
        raise _invalid(name, line, f"the tag {node.tag} is not accepted")
    return loader.construct_object(node)


def _mapping(
    loader: yaml.SafeLoader,
    node: yaml.MappingNode,
    path: Path,
    lines: dict[Path, int],
    name: str,
) -> dict[str, object]:
    made: dict[str, object] = {}
    for key_node, value_node in node.value:
        key, line = str(key_node.value), key_node.start_mark.line + 1
        if key in made:
            raise _invalid(name, line, f"the key {key!r} stands twice")
        lines[*path, key] = line
        made[key] = _plain(loader, value_node, (*path, key), lines, name)
    return made


def _invalid(name: str, line: int, problem: str) -> InvalidInput:
    return InvalidInput(
        "yaml.invalid",
        f"{name}, line {line}: {problem}.",
        hint="Correct the line; docs/reference/settings.md lists every key.",
        context={"line": line},
    )
