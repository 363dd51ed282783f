"""How fast each backend is: proven equal first, then measured in turns, on the same processors.

Read in this order: `candidates.py` says what is measured; `turns.py` is the whole procedure, which knows neither
frameworks nor processes; `proof.py` holds every candidate against the referee before it is timed; `subject.py` is what
happens in a candidate's own process (`worker.py`, started by `crew.py`), `onnx_session.py` the one that is no backend;
`statistics.py`, `roofline.py` and `machine.py` say what the numbers mean; `record.py` is all of it as data, which
`screen.py`, `plots.py` and `page.py` show. `profiles.py` is the same for the stages of one backend.
"""
