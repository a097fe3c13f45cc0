"""What is known of kinds of programs, by the name that ``programs.yaml`` has for the kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from stars_guard.parsing import _code_kinds as codes
from stars_guard.parsing import _data_kinds as data
from stars_guard.parsing import _network_kinds as network
from stars_guard.parsing import _passing_kinds as passing
from stars_guard.parsing import _running_kinds as running
from stars_guard.parsing import _secret_kinds as secrets
from stars_guard.parsing import _target_kinds as targets
from stars_guard.parsing.shell_findings import Case, Finding

__all__ = ["KINDS"]

KINDS: Mapping[str, Callable[[Case], Finding]] = {
    "archive": targets.archive,
    "cipher": network.cipher,
    "cloud": network.cloud,
    "cluster": running.cluster,
    "code": codes.code,
    "commanded": codes.commanded,
    "commands": passing.commands,
    "containers": running.containers,
    "data-store": data.data_store,
    "database": data.database,
    "downloader": network.downloader,
    "elevated": running.elevated,
    "environment": running.environment,
    "evaluator": running.evaluator,
    "files": targets.files,
    "filter": secrets.filter_program,
    "finder": targets.finder,
    "git": targets.git,
    "interpreter": codes.interpreter,
    "killer": targets.killer,
    "lookup": network.lookup,
    "packages": network.packages,
    "passes-on": passing.passes_on,
    "permissions": targets.permissions,
    "printed": secrets.printed,
    "remote": running.remote,
    "remover": targets.remover,
    "renamer": codes.renamer,
    "shell": running.shell,
    "shown-variables": secrets.shown_variables,
    "sourcer": running.sourcer,
    "system-packages": network.system_packages,
    "wrapper": running.wrapper,
    "xargs": running.xargs,
}
"""Each gives the finding of one call."""
