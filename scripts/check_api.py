"""Compare the public API with that of the last release, so that nobody's code breaks unseen.

A break is an error as long as the version doesn't announce it. It is fine once the minor version (before 1.0) or
the major version (after it) is higher than the release's.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import griffe

REPOSITORY = Path(__file__).parent.parent
PACKAGES = {"stars_guard": ".", "langchain_stars": "integrations"}
"""Where each package is found, from the root."""


def last_release(repository: Path) -> str | None:
    """The last release's tag, ``v`` and a version."""
    done = subprocess.run(
        ["git", "describe", "--tags", "--abbrev=0", "--match", "v[0-9]*"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or None


def may_break(release: str, version: str) -> bool:
    """Whether a version may break what a release promised."""
    old, new = ([int(part) for part in text.split(".")[:2]] for text in (release.removeprefix("v"), version))
    return new[0] > old[0] or (old[0] == 0 == new[0] and new[1] > old[1])


def breaks(repository: Path, package: str, folder: str, release: str) -> list[str]:
    """What was there at the release, and is not or is something else now, a line each."""
    before = griffe.load_git(package, ref=release, repo=repository, search_paths=[folder], allow_inspection=False)
    now = griffe.load(package, search_paths=[repository / folder], try_relative_path=False, allow_inspection=False)
    return [breakage.explain() for breakage in griffe.find_breaking_changes(before, now)]


def main(repository: Path = REPOSITORY) -> int:
    """Print what breaks; 1 if it may not."""
    release = last_release(repository)
    if release is None:
        print("griffe: there is no release tag yet, so the public API is compared with nothing")
        return 0
    version = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["version"]
    broken = [line for package, folder in PACKAGES.items() for line in breaks(repository, package, folder, release)]
    print(*broken, sep="\n", end="\n" if broken else "")
    if broken and may_break(release, version):
        print(f"griffe: version {version} may break what {release} promised; say so in CHANGELOG.md")
        return 0
    print(f"griffe: compared with {release}: {f'{len(broken)} breaks, see above' if broken else 'nothing breaks'}")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
