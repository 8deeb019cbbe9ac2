"""Methods compared honestly: a plan, its runs, equal tuning, statistics, and a table."""
