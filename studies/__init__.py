"""Scaling studies: one file a study, saying what it varies and what it concludes.

None is written yet; ``netsim study`` will list them here.
"""
