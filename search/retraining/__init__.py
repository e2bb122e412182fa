"""Trainings outside of the search, which confirm or reproduce it; imports the engine and what lies below it."""
