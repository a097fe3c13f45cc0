"""Compare the public API with that of the last release, so that nobody's code breaks unseen.

A break is an error as long as the version doesn't announce it. It is fine once the minor version (before 1.0) or
the major version (after it) is higher than the release's.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent


def last_release() -> str | None:
    """The last release's tag, ``v`` and a version."""
    done = subprocess.run(
        ["git", "describe", "--tags", "--abbrev=0", "--match", "v[0-9]*"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or None


def may_break(release: str, version: str) -> bool:
    """Whether a version may break what a release promised."""
    old, new = ([int(part) for part in text.split(".")[:2]] for text in (release.removeprefix("v"), version))
    return new[0] > old[0] or (old[0] == 0 == new[0] and new[1] > old[1])


def main() -> int:
    release = last_release()
    if release is None:
        print("griffe: there is no release tag yet, so the public API is compared with nothing")
        return 0
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    broken = False
    for package, folder in (("stars_guard", "."), ("langchain_stars", "integrations")):
        command = [sys.executable, "-m", "griffe", "check", package, "--search", folder, "--against", release]
        broken |= subprocess.run(command, cwd=REPOSITORY, check=False).returncode != 0
    if broken and may_break(release, version):
        print(f"griffe: version {version} may break what {release} promised; say so in CHANGELOG.md")
        return 0
    print(f"griffe: compared with {release}: {'broken, see above' if broken else 'nothing breaks'}")
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
