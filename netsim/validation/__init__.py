"""Predicted against measured: the exchanges that are compared, how they are measured, and how predicted."""
