"""The runbook has an entry for every reason that a condition may have, and for no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stageline_operator import labels
from stageline_operator.reasons import Reason

ROOT = Path(__file__).resolve().parents[2]
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
ENTRIES = {
    entry.partition("\n")[0]: entry.partition("\n")[2]
    for entry in re.split(r"^#{2} .*$|^### ", RUNBOOK, flags=re.M)[1:]
    if entry.partition("\n")[0]
}


def test_every_reason_has_one_entry_and_nothing_else_has():
    headings = re.findall(r"^### (.*)$", RUNBOOK, re.M)
    missing = {reason.value for reason in Reason} - set(headings)
    assert not missing, f"docs/runbook.md lacks {sorted(missing)}"
    extra = set(headings) - {reason.value for reason in Reason}
    assert not extra, f"docs/runbook.md has {sorted(extra)}, which no condition has"
    assert len(headings) == len(set(headings)), "a reason has two entries"


@pytest.mark.parametrize("reason", Reason)
def test_an_entry_says_what_it_means_how_to_see_it_and_what_to_do(reason):
    entry = ENTRIES[reason.value]
    assert entry.strip().partition("\n")[0] == reason.meaning, "it says another thing than status"
    assert re.search(r"^- See: `(kubectl|stageline) .+`$", entry, re.M), "no command shows it"
    assert re.search(r"^- Do: \S.{5,}", entry, re.M), "it does not say what to do"


def test_the_worst_come_first_as_in_status():
    headings = re.findall(r"^### (.*)$", RUNBOOK, re.M)
    assert headings == [reason.value for reason in Reason]


def test_commands_select_by_labels_that_there_are():
    known = {value for value in vars(labels).values() if isinstance(value, str) and "/" in value}
    used = set(re.findall(r"(?:--selector |,)([\w./-]+/[\w-]+)=", RUNBOOK))
    assert used
    assert used <= known, f"no pod has {used - known}"


def test_every_anchor_leads_to_an_entry():
    for target in re.findall(r"\]\(#([\w-]+)\)", RUNBOOK):
        assert target in {name.lower() for name in ENTRIES}
