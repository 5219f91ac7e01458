"""Bad bytes: whatever a record, a config or a stored file holds, it meets one of the three fates.

mutations.py   seeded damage to bytes: bits, spans, tokens, numbers, JSON trees, torn ends
cases.py       what a target is: valid inputs, a check, checksums mended; the oracle of the fates
records.py     records through the decoder, under several mappings
configs.py     config files
logs.py        journal, verdict log, dead letters: files of lines
folders.py     snapshots, versions, pointer, operator commands, lease
files.py       JSON lines, gzip, Parquet, archives through the file source
targets.py     all of them, with the share of inputs each gets
runner.py      processes that work through numbered inputs under limits, and the one that watches them
__main__.py    python -m tests.fuzz --inputs N [--seed S] [--only decode,config]
"""
