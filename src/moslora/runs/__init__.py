"""One recipe from data to record."""
