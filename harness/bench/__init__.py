"""The benchmark: backends are held against the referee first, then measured in turns on the same processors.

Read in this order:

- `candidates.py`: the things to measure.
- `rounds.py`: the whole procedure, without frameworks and processes.
- `proof.py`: the referee's results, which a candidate has to reach before it is timed.
- `process.py`: a candidate's process, seen from outside; `worker` is what runs in it.
- `analysis`, `machine.py`: the meaning of the figures, and the conditions that they were measured under.
- `record.py`: all of it as data, which `report` shows.
- `profiles.py`: the same for the stages of one backend.
- `accuracy.py`: whole trainings, until they reach an accuracy.
"""
