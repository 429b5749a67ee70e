"""What is run, as a checked configuration, and what came out of it."""
