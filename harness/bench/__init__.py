"""How fast each backend is: held against the referee first, then measured in turns on the same processors.

Read in this order:

- `candidates.py`: what is measured.
- `rounds.py`: the whole procedure, without frameworks and processes.
- `proof.py`: what a candidate is held against before it is timed.
- `process.py`: a candidate's process, seen from outside; `worker` is what runs in it.
- `statistics.py`, `roofline.py`, `machine.py`: what the figures mean.
- `record.py`: all of it as data, which `report` shows.
- `profiles.py`: the same for the stages of one backend.
"""
