"""What a record holds of what its caller said, as a caller says it."""

from __future__ import annotations

from stars_guard.audit import CallRecord
from stars_guard.core.messages import Message
from stars_guard.core.vocabulary import Role
from stars_guard.errors import AuditError

__all__ = ["messages_of", "stops_of"]


def messages_of(record: CallRecord) -> list[Message]:
    """The conversation of a record.

    Raises:
        AuditError: the record does not hold its text whole.
    """
    if not all(turn.content.whole for turn in record.prompt):
        raise AuditError(
            f"the record {record.call_id} does not hold its prompt whole", hint="only content mode full keeps it so"
        )
    return [Message(_role(turn.role), turn.content.text or "") for turn in record.prompt]


def stops_of(record: CallRecord) -> tuple[str, ...]:
    """The stop strings of a record.

    Raises:
        AuditError: the record does not hold them whole.
    """
    kept = [stop if isinstance(stop, str) else stop.text if stop.whole else None for stop in record.stop]
    stops = tuple(stop for stop in kept if stop is not None)
    if len(stops) < len(kept):
        raise AuditError(
            f"the record {record.call_id} does not hold its stop strings", hint="only content mode full keeps them so"
        )
    return stops


def _role(role: str) -> Role:
    return role  # type: ignore[return-value]  # Message checks it
