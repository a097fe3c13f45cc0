"""What is known of kinds of programs, by the name that ``programs.yaml`` has for the kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from stars_guard.parsing import _code_kinds as codes
from stars_guard.parsing import _data_kinds as data
from stars_guard.parsing import _network_kinds as network
from stars_guard.parsing import _running_kinds as running
from stars_guard.parsing import _target_kinds as targets
from stars_guard.parsing.shell_findings import Case, Finding

__all__ = ["KINDS"]

KINDS: Mapping[str, Callable[[Case], Finding]] = {
    "archive": targets.archive,
    "cloud": network.cloud,
    "cluster": running.cluster,
    "code": codes.code,
    "commanded": codes.commanded,
    "containers": running.containers,
    "data-store": data.data_store,
    "database": data.database,
    "downloader": network.downloader,
    "elevated": running.elevated,
    "environment": running.environment,
    "evaluator": running.evaluator,
    "files": targets.files,
    "finder": targets.finder,
    "git": targets.git,
    "interpreter": codes.interpreter,
    "killer": targets.killer,
    "lookup": network.lookup,
    "packages": network.packages,
    "permissions": targets.permissions,
    "remote": running.remote,
    "remover": targets.remover,
    "shell": running.shell,
    "sourcer": running.sourcer,
    "system-packages": network.system_packages,
    "wrapper": running.wrapper,
    "xargs": running.xargs,
}
"""Each gives the finding of one call."""
