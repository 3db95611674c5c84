"""The claims ledger: every statement of the source report, its verdict, and the evidence a lesson shows for it."""

from __future__ import annotations

import functools
import html
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from packaging.version import Version

from ..environment import versions
from ..errors import CourseError
from ..paths import data_path

VERDICTS = {"holds": "✓", "holds within limits": "≈", "changed": "↻", "wrong": "✗"}
_COLOURS = {"holds": "#009E73", "holds within limits": "#0072B2", "changed": "#E69F00", "wrong": "#D55E00"}


@dataclass(frozen=True)
class Claim:
    """One entry of `data/claims.yml`.

    since: the oldest package versions with which the evidence holds, such as {"torch": "2.9"}.
    record: where the evidence, or a part of it, was recorded: a JSON file in `data/`, and after # its entry there.
    """

    id: str
    section: str
    statement: str
    lesson: str
    verdict: str
    today: str
    since: tuple[tuple[str, str], ...] = ()
    record: str = ""

    @property
    def recorded(self) -> str:
        """One sentence on the record that the evidence rests on: when, on which machine, with which version; or ""."""
        if not self.record:
            return ""
        file, _, entry = self.record.partition("#")
        found = json.loads(data_path(file).read_text(encoding="utf-8"))
        found = found[entry] if entry else found
        machine, version = found["machine"], found["versions"]["onnxruntime"]
        return (
            f"The evidence rests in part on a record of {found['date']}: {machine['processor']}, {machine['cores']} cores, "
            f"onnxruntime {version}."
        )


@functools.cache
def ledger() -> dict[str, Claim]:
    """All claims by id, in the order of the report: what the book's page is made from."""
    entries = yaml.safe_load(data_path("claims.yml").read_text(encoding="utf-8"))
    return {e["id"]: Claim(**{**e, "since": tuple(e.get("since", {}).items())}) for e in entries}


@dataclass(frozen=True)
class Proof:
    """What `claim()` shows: the statement, the verdict, and each piece of evidence with its outcome."""

    claim: Claim
    evidence: dict[str, bool]
    skipped: str = ""

    def __repr__(self) -> str:
        lines = [f"{VERDICTS[self.claim.verdict]} {self.claim.verdict}: {self.claim.statement}"]
        lines += [f"    {'✓' if true else '✗'} {what}" for what, true in self.evidence.items()]
        notes = [f"  {note}" for note in (self.claim.recorded, self.skipped) if note]
        return "\n".join([*lines, f"  today: {self.claim.today}", *notes])

    def _repr_html_(self) -> str:
        claim, colour = self.claim, _COLOURS[self.claim.verdict]
        items = "".join(f"<li>{'✓' if true else '✗'} {html.escape(what)}</li>" for what, true in self.evidence.items())
        note = "".join(f"<p>{html.escape(note)}</p>" for note in (claim.recorded, self.skipped) if note)
        return (
            f'<div class="claim" id="claim-{claim.id}" style="border-left: 5px solid {colour}; padding: 0.4em 1em; '
            f'margin: 0.5em 0"><p><small>The report, section {claim.section}</small><br>{html.escape(claim.statement)}'
            f"</p><p><b>{VERDICTS[claim.verdict]} {claim.verdict}.</b> {html.escape(claim.today)}</p>"
            f'<ul style="list-style: none; padding-left: 0.5em">{items}</ul>{note}</div>'
        )


def claim(id: str, evidence: Mapping[str, Any]) -> Proof:
    """Assert the evidence for one statement of the ledger and show its verdict. First used in lesson 00.

    evidence: what was seen → whether it is so. The verdict in the ledger is upheld only when all of it is so.
    Raises AssertionError naming what failed; CourseError for an id that is not in the ledger, or for empty evidence.
    Where an installed package is older than the claim needs, it says so instead of failing.
    """
    if id not in ledger():
        raise CourseError(f"There is no claim {id!r} in data/claims.yml. Did you mean one of: {_near(id)}?")
    entry = ledger()[id]
    if not isinstance(evidence, Mapping) or not evidence:
        raise CourseError("claim() expects evidence as a dict: a sentence saying what was seen → True or False.")
    outcome = {what: bool(true) for what, true in evidence.items()}
    failed = [what for what, true in outcome.items() if not true]
    if failed and (old := _too_old(entry)):
        return Proof(entry, outcome, f"Not upheld here: it needs {old}.")
    assert not failed, f"claim {id!r} ({entry.verdict}) is not upheld: {'; '.join(failed)}"
    return Proof(entry, outcome)


def _near(id: str) -> str:
    import difflib

    return ", ".join(difflib.get_close_matches(id, ledger(), n=3, cutoff=0.3)) or ", ".join(ledger())


def _too_old(entry: Claim) -> str:
    installed = versions()
    old = [
        f"{name} {least} or newer (here: {installed.get(name, 'not installed')})"
        for name, least in entry.since
        if _older(installed.get(name, "0"), least)
    ]
    return " and ".join(old)


def _older(installed: str, least: str) -> bool:
    """A release candidate counts as its release: it has what the release will have, so it excuses nothing."""
    return Version(Version(installed).base_version) < Version(least)
