"""Records to plots and one self-contained HTML page; reads what runs and comparisons left on disk, without torch."""
