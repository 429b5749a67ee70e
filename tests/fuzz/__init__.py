"""A fuzz battery: whatever netsim is given, it ends in a result or in one line that says what is wrong.

Each kind of input has one file, or one function, that draws an input from a seed; :mod:`tests.fuzz.law` says what must
hold of every input, and :mod:`tests.fuzz.battery` counts. ``python -m tests.fuzz --help`` runs it by hand.
"""
