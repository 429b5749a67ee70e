"""The commands of the command line, one file each; :mod:`netsim.cli` lists them.

They import what they run when they run it, so that help needs none of it.
"""
