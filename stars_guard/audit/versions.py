"""The versions that a record has had. A record says which one it is in ``schema_version``.

To change a field of `stars_guard.audit.record.CallRecord`, add a version here, with what is new about it. A test
compares the fields with those that are frozen for the newest version, so it fails when a field changes without a
version. Records of every version in this table stay readable: ``tests/records`` holds logs that the code of each time
has written.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from pydantic_core import from_json

from stars_guard.errors import AuditError

__all__ = ["NEWEST", "VERSIONS", "SchemaVersion", "unreadable"]

SchemaVersion = Literal[1, 2, 3, 4, 5, 6]
"""The versions that this program reads."""

NEWEST: SchemaVersion = 6
"""The version that this program writes."""

VERSIONS: Mapping[SchemaVersion, str] = MappingProxyType(
    {
        1: "The first. The seed is a number, which readers of JSON may round. It may lack stop and, of a score, batch "
        "and cached. Its records are lines of a JSONL file without a chain.",
        2: "The seed is a string, and the record is an entry of a chain. It may lack what came in the course of the "
        "version: stage, which is then an answer; tools; grammar_sha256; encrypted, of a text; and the thresholds of a "
        "learned schedule, in decoding.",
        3: "Every field is written, whether it was used or not. From here on, a new field makes a new version.",
        4: "Stop strings and the names of tools are texts, so that the content mode holds for them. It says who wrote "
        "what was judged (role), in which form tool calls are written (tool_form), which candidates were judged whole "
        "(whole), what a stop string took back of the answer (stop_overlap), and what judges said of an answer that "
        "ended early (review).",
        5: "It says which segments were taken back, which candidates came from a recovery prompt, which rule decided "
        "about a tool call, where the values of its arguments came from, and what a person said about it. It has what "
        "a model reasoned before its answer (reasoning).",
        6: "It says what the policy's shadows would have decided (shadows). It says which judges are asked only where "
        "another one is in doubt (doubt, of a rule), why such a judge was asked (asked, of a score), and which judges "
        "were not asked because another one is sure (unasked).",
    }
)
"""What each version is, in a line or two."""


def unreadable(payload: str | bytes, where: str) -> AuditError:
    """Why a payload cannot be read as a record. The error holds none of its text.

    Args:
        where: the place in the log.
    """
    version = _version(payload)
    if version is not None and version > NEWEST:
        return AuditError(
            f"{where} is a record of version {version}, and this version of stars-guard reads records up to {NEWEST}",
            hint="upgrade stars-guard to read this log",
        )
    return AuditError(f"{where} is not a record that this version of stars-guard reads")


def _version(payload: str | bytes) -> int | None:
    try:
        data = from_json(payload)
    except ValueError:
        return None
    version = data.get("schema_version") if isinstance(data, dict) else None
    return version if type(version) is int else None
