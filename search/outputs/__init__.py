"""What a study leaves: tables, summary, report, charts and model; imports the analysis and what lies below it."""
