"""How fast the project is: against the loops that tutorials show, other programs, and what the machine can do."""
