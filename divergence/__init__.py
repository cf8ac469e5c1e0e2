"""Where two training programs part, and which convention it is.

Each program records its first steps (`divergence.pytorch`, `divergence.keras`, or `divergence.record` for any other);
`python -m divergence one.npz other.npz` compares the records. Recording needs NumPy and the program's own framework,
comparing needs NumPy and SciPy and loads no framework.
"""
