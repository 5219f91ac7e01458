"""Every target, and the thousandths of all inputs it gets: the most where an input costs least and means most."""

from __future__ import annotations

from . import configs, files, folders, logs, records
from .cases import Target

TARGETS = (
    Target("decode", 460, records.valid, records.open_decode),
    Target("config", 60, configs.valid, configs.open_config),
    Target("journal", 150, logs.valid_journals, logs.open_journal, logs.mend_journal),
    Target("verdicts", 70, logs.valid_verdicts, logs.open_verdicts),
    Target("letters", 60, logs.valid_letters, logs.open_letters),
    Target("snapshots", 40, folders.valid_snapshots, folders.open_snapshots, folders.mend_snapshot),
    Target("versions", 40, folders.valid_versions, folders.open_versions),
    Target("commands", 40, folders.valid_commands, folders.open_commands),
    Target("lease", 20, folders.valid_leases, folders.open_lease),
    Target("lines", 45, files.valid_lines, files.open_files, files.mend_lines),
    Target("parquet", 15, files.valid_parquet, files.open_files),
)
