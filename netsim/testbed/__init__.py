"""Predicted against measured: the shaped cluster, its host model, micro-benchmarks and campaigns."""
