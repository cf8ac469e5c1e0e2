"""A stage as a process: its parameters, errors, signals and whole files."""
