"""What a record says, computed and never written; imports the record and what lies below it."""
