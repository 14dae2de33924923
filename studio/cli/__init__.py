"""The commands of `python -m studio`; flags are derived from the models that the Python API uses."""
