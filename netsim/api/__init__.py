"""The functions of ``import netsim``, one module per subject; ``netsim/__init__.py`` has the list."""

RUN_CHANGES = {"rounds": {"otherwise": "5"}, "send_mode": {"otherwise": "eager"}}
"""What a run on real ranks says of these options instead of their declarations."""
