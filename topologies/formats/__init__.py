"""Files of networks that other programs write, one module a format.

Each module has a function that takes the content of a file and the beginning of error messages, and returns a
:class:`~topologies.formats.draft.Draft`: the network as its file describes it, and what the file leaves open.
"""
