"""Where a network that somebody else wrote differs from one of the spec: start with `checking.py`."""

SYMBOL = "-symbol.json"  # the end of a name of MXNet's exported networks
PROGRAMS = (".pt", ".pth", ".torchscript")  # of TorchScript's
FILES = (".onnx", SYMBOL, *PROGRAMS)  # ends of names that are a file's with a model in it, and no code's
