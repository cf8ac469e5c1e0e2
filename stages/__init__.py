"""The pipeline's stages: one module for each stage in dvc.yaml, named after it."""

import sys

if sys.argv[0] == "-m":  # Python is looking for the stage of `python -m stages.<name>`, which is not yet loaded
    from stages.program.process import explain_missing_packages, stop_on_signals

    explain_missing_packages()
    stop_on_signals()  # loading a framework takes seconds, in which Ctrl-C would print a traceback
