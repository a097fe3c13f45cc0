"""What is known of kinds of programs, by the name that ``programs.yaml`` has for the kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from stars_guard.parsing import _running_kinds as running
from stars_guard.parsing import _target_kinds as targets
from stars_guard.parsing.shell_verdict import Case, Finding

__all__ = ["KINDS"]

KINDS: Mapping[str, Callable[[Case], Finding]] = {
    "archive": targets.archive,
    "cloud": targets.cloud,
    "cluster": running.cluster,
    "code": running.code,
    "containers": running.containers,
    "data-store": targets.data_store,
    "database": targets.database,
    "downloader": targets.downloader,
    "elevated": running.elevated,
    "environment": running.environment,
    "evaluator": running.evaluator,
    "files": targets.files,
    "finder": targets.finder,
    "git": targets.git,
    "interpreter": running.interpreter,
    "killer": targets.killer,
    "lookup": targets.lookup,
    "packages": targets.packages,
    "permissions": targets.permissions,
    "remote": running.remote,
    "remover": targets.remover,
    "shell": running.shell,
    "sourcer": running.sourcer,
    "system-packages": targets.system_packages,
    "wrapper": running.wrapper,
    "xargs": running.xargs,
}
"""Each gives the finding of one call."""
