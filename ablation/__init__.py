"""Which convention causes which part of the gap between PyTorch and Keras."""

import sys

if sys.argv[0] == "-m":  # Python is looking for the stage of `python -m ablation.<name>`, which is not yet loaded
    from stages.common.program import stop_on_signals

    stop_on_signals()  # loading takes a second, in which Ctrl-C would print a traceback
