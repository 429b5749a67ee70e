"""The checked configuration of a run, its results, and profiles of machines."""
