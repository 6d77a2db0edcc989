"""Labels that judge nothing: counted by reason, and the last few of them named."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Annotated

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from everloop.core.clock import Instant
from everloop.core.ids import Id
from everloop.core.ports import where
from everloop.kernel.unit_of_work import View, Work
from everloop.kernel.verbs import query
from everloop.monitor.labelling import Refusal
from everloop.monitor.model import LabelRefusal, RefusedLabel, RefusedLabels

NOBODY = Id("")
NEWEST_KEPT = 20
NAME_CHARS = 200


def keep_refused(work: Work, refused: Iterable[Refusal]) -> None:
    """Count refused labels by deployment and reason, and keep the names of the newest."""
    groups: dict[tuple[Id, LabelRefusal], list[str]] = defaultdict(list)
    for one in refused:
        groups[one.deployment, one.reason].append(one.name[:NAME_CHARS])
    for (deployment, reason), names in groups.items():
        newest = tuple(RefusedLabel(name=name, at=work.now) for name in names[-NEWEST_KEPT:][::-1])
        mine = where(project=work.project, deployment=deployment, reason=reason.value)
        before = work.first(RefusedLabels, *mine)
        if before is None:
            kept = work.insert(
                RefusedLabels(
                    id=work.new_id(),
                    project=work.project,
                    deployment=deployment,
                    reason=reason,
                    count=len(names),
                    newest=newest,
                )
            )
        else:
            kept = work.replace(
                replace(
                    before,
                    count=before.count + len(names),
                    newest=(*newest, *before.newest)[:NEWEST_KEPT],
                )
            )
        work.touch(f"refused_labels:{kept.id}")


def forget_names(work: Work, deployment: Id, before: Instant) -> None:
    """Erase the names of labels that were refused before a time; the counts stay."""
    for row in work.select(RefusedLabels, *where(deployment=deployment)):
        left = tuple(label for label in row.newest if label.at >= before)
        if left != row.newest:
            work.replace(replace(row, newest=left))


class ListRefused(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask which labels were refused, of one deployment or of all."""

    deployment: Annotated[Id, Meta(max_length=40)] | None = None


class RefusedList(msgspec.Struct, frozen=True, kw_only=True):
    """Refused labels by reason, the most frequent first."""

    items: tuple[RefusedLabels, ...]


@query("feedback.refused", permission="feedback:read")
def list_refused(ask: ListRefused, view: View) -> RefusedList:
    """Count the labels that judge nothing by reason, and name the newest of each."""
    wanted = {} if ask.deployment is None else {"deployment": ask.deployment}
    rows = view.select(RefusedLabels, *where(**wanted))
    return RefusedList(items=tuple(sorted(rows, key=lambda row: -row.count)))
