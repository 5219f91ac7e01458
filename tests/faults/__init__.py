"""The fault harness: the real worker, killed and damaged in every way we know, must come to the same model.

stream.py      a seeded stream with late, dead, ignored and repeated records, and what must become of each
places.py      where a worker can be hurt: the numbered steps of the commit protocol, and every storage operation
mishaps.py     what can befall it there from within: a signal, a disk that fails, a clock that jumps
ledger.py      what a worker says it read, closed and learned, kept outside its state; what of that survives
mutations.py   the protocol broken on purpose, to show that the harness notices
driver.py      a process that has imported everything and forks a worker per life
damage.py      what happens to a state folder between two lives
power.py       a power cut: what was not fsynced may be gone
proxy.py       connections to Kafka cut, refused, slowed, left hanging
volume.py      a small disk that can be full or read-only
worlds.py      where trials take place: files, or a topic of a real broker
plans.py       what is to happen to a worker, life by life, drawn from a seed
stages.py      a trial in progress: its lives, and what is noted of them
faults.py      what befalls a life beside a kill: broker, network, disk, clock, a second worker
trials.py      running a plan and judging what comes of it
growing.py     topics that get partitions while they are read, compared with a replay
verdicts.py    the comparison with a worker that was never interrupted
table.py       faults x trials x verdicts
__main__.py    python -m tests.faults --kills N --seed S [--source files|kafka]

steady.py      a producer that goes on for ever
memory.py      resident memory of the worker that learns
complaints.py  log lines that no fault explains
soak.py        python -m tests.faults.soak --minutes M --seed S: a live worker and its standby under mixed faults
"""
