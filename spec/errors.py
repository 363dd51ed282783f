"""The one exception for input that cannot be used."""


class InvalidInput(ValueError):
    """The input cannot be used. The message says what was expected, what arrived and what to do.

    Everything in this project that refuses a caller's input raises this class and no other, so that a program (the
    command line is one) can tell a caller's mistake from a fault of ours.
    """
