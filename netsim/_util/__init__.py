"""What every room uses: units, errors, files that are whole or absent, random streams, the machine."""
