"""Tools of every room: units, errors, files that are whole or absent, random streams, the machine."""
