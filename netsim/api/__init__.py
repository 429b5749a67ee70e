"""The functions of ``import netsim``, one module per subject; ``netsim/__init__.py`` has the list."""
