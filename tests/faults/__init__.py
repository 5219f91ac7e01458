"""The fault harness: the real worker, killed and damaged in every way we know, must come to the same model.

stream.py      a seeded stream with late, dead, ignored and repeated records, and what must become of each
places.py      where a worker can be killed: the numbered steps of the commit protocol, and every storage operation
ledger.py      what a worker says it read, closed and learned, kept outside its state; what of that survives
mutations.py   the protocol broken on purpose, to show that the harness notices
driver.py      a process that has imported everything and forks a worker per life
damage.py      what happens to a state folder between two lives
power.py      a power cut: what was not fsynced may be gone
trials.py      a trial: some lives with their ends, seeded; and running it
worlds.py     where trials take place: files, or a topic of a real broker
verdicts.py    the comparison with a worker that was never interrupted
__main__.py    python -m tests.faults --kills N --seed S [--source files|kafka]
"""
