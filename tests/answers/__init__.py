"""Answers to the exercises: for each a right one and wrong ones, in every framework that it takes.

A wrong answer is the right one with a text in it replaced; beside it stands what has to be said of it, and nothing else
may be. The solutions are here, and in no file that is installed.
"""

from answers import flax, gluon, numbers, others, pytorch

ANSWERS = pytorch.ANSWERS | gluon.ANSWERS | flax.ANSWERS | others.ANSWERS | numbers.ANSWERS
