"""The command line and the terminal; imports nothing of this project."""
