"""Recording the calls of PyTorch's functions, and what each of them is as an operation of a graph."""
