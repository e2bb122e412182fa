"""What is tried next and what is stopped early; imports the record and what lies below it."""
