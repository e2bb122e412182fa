"""Decides what is tried next and which trials are stopped early; imports the record and what lies below it."""
