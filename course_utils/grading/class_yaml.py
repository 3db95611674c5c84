"""Reading YAML as text with lines: no tags, no aliases, no types that YAML guesses, nothing given twice."""

from __future__ import annotations

from pathlib import Path

import yaml

from ..errors import CourseError
from ..paths import TooLargeError, read_limited
from .intake import shown

_LARGEST = 2**16  # bytes
_DEEPEST = 5  # lists in lists; a class file has three
_MOST_FAULTS = 20  # that are told
_PLAIN = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map")}
_NOTHING = ("", "~", "null")


class FileFaultsError(Exception):
    """The file cannot be read any further."""


class Reader:
    """One file, and the faults that were found in it so far: pairs of line and sentence."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.faults: list[tuple[int, str]] = []

    def said(self) -> str:
        """All faults, for people: one a line."""
        lines = [f"line {line}: {sentence}" if line else sentence for line, sentence in sorted(self.faults)]
        rest = len(lines) - _MOST_FAULTS
        more = [f"And {rest} more."] if rest > 0 else []
        count = f"{len(lines)} faults" if len(lines) > 1 else "a fault"
        return "\n  ".join([f"The class file {shown(str(self.path))!r} has {count}:", *lines[:_MOST_FAULTS], *more])

    def fault(self, node: yaml.Node | None, sentence: str) -> None:
        self.faults.append((node.start_mark.line + 1 if node else 0, sentence))

    def top(self) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """The fields of the file. Raises CourseError when there is none, FileFaultsError when it is no YAML."""
        text = self._content()
        try:
            self._refuse(text)
            node = yaml.compose(text, Loader=yaml.BaseLoader)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 0
            why = shown(" ".join(filter(None, [error.context, error.problem])))
            self.faults.append(
                (line, f"This is not YAML ({why}): look at the colons, quotes and spaces here and above.")
            )
            raise FileFaultsError from None
        except yaml.YAMLError as error:
            self.faults.append((0, f"This is not YAML ({shown(str(getattr(error, 'reason', error)))})."))
            raise FileFaultsError from None
        if node is None:
            self.faults.append((0, "It is empty: start with a copy of the course's notebooks/assignments/class.yaml."))
            raise FileFaultsError
        return self.mapping(node, "The file has one field a line, such as  title: My class")

    def _content(self) -> str:
        try:
            return read_limited(self.path, _LARGEST).decode("utf-8-sig")
        except TooLargeError:
            why = f"it has more than {_LARGEST:,} bytes"
        except UnicodeDecodeError:
            why = "it is no UTF-8 text"
        except OSError as error:
            why = error.strerror or "it is no file"
        raise CourseError(
            f"The class file {shown(str(self.path))!r} cannot be read ({why}): give a copy of the course's notebooks/assignments/class.yaml."
        )

    def _refuse(self, text: str) -> None:
        """Raise FileFaultsError for what a class file has no need of, before anything is built from it."""
        depth = documents = 0
        for event in yaml.parse(text, Loader=yaml.BaseLoader):
            documents += isinstance(event, yaml.DocumentStartEvent)
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            for bad, why in (
                (
                    getattr(event, "anchor", None),
                    "Anchors (&) and aliases (*) are not used here: write the values out.",
                ),
                (depth > _DEEPEST, f"Lists lie in each other more than {_DEEPEST} levels deep: is it the right file?"),
                (documents > 1, "A second document begins here (---): a class file is one."),
            ):
                if bad:
                    line = event.start_mark.line + 1 if event.start_mark else 0
                    self.faults.append((line, why))
                    raise FileFaultsError

    def is_nothing(self, node: yaml.Node) -> bool:
        """Whether no value stands after the colon."""
        return isinstance(node, yaml.ScalarNode) and node.style is None and node.value in _NOTHING

    def text(self, node: yaml.Node, wanted: str) -> str | None:
        """The text as it stands there; none, and a fault, for a list, a mapping, or nothing."""
        if not isinstance(node, yaml.ScalarNode) or node.tag not in _PLAIN or self.is_nothing(node):
            self.fault(node, f"{wanted}, and here stands {_kind(node)}.")
            return None
        return node.value.strip()

    def items(self, node: yaml.Node, wanted: str) -> list[yaml.Node]:
        """The members of a list; none, and a fault, for anything else."""
        if not isinstance(node, yaml.SequenceNode) or node.tag not in _PLAIN:
            self.fault(node, f"{wanted}, and here stands {_kind(node)}.")
            return []
        return node.value

    def mapping(self, node: yaml.Node, wanted: str) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """Names with the nodes of name and value; nothing, and a fault, for anything else. A name that comes twice is a fault."""
        if not isinstance(node, yaml.MappingNode) or node.tag not in _PLAIN:
            self.fault(node, f"{wanted}, and here stands {_kind(node)}.")
            return {}
        found: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key, value in node.value:
            name = self.text(key, "Before the colon stands a name")
            if name in found:
                self.fault(key, f"{shown(name)!r} stands here twice: keep one of them.")
            elif name is not None:
                found[name] = (key, value)
        return found


def _kind(node: yaml.Node) -> str:
    if node.tag not in _PLAIN:
        return f"something with the tag {shown(node.tag)!r}"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    if isinstance(node, yaml.MappingNode):
        return "a list of names with values"
    return repr(shown(node.value)) if node.value else "nothing"
