"""A store that keeps each record as a line of a file."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

from stars_guard import AuditError, AuditStore, CallRecord
from stars_guard.audit import Writing


class LinesStore(AuditStore):
    """A file with a line of JSON for each record, without a chain."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: ThreadPoolExecutor | None = None

    @classmethod
    def from_url(cls, url: str, writing: Writing | None = None) -> Self:
        return cls(Path(url.removeprefix("acme-lines://")))

    async def append(self, record: CallRecord) -> None:
        self._writer = self._writer or ThreadPoolExecutor(1, thread_name_prefix="acme-lines")
        loop = asyncio.get_running_loop()
        writing = loop.run_in_executor(self._writer, self._write, record.model_dump_json())
        # a caller that is cancelled stops waiting, and its record is written all the same
        await asyncio.shield(writing)

    async def aclose(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            await asyncio.to_thread(writer.shutdown)

    def _write(self, line: str) -> None:
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")
        except OSError as exc:
            raise AuditError(f"the log {self._path} cannot be written: {exc.strerror}") from exc

    def read(self) -> list[CallRecord]:
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        except OSError as exc:
            raise AuditError(f"the log {self._path} cannot be read: {exc.strerror}") from exc
        return [CallRecord.model_validate_json(line) for line in text.split("\n") if line]
