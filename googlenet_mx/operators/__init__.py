"""Recording MXNet's operators, and what each of them is as an operation of a graph."""
