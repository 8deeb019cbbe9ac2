"""From a data source to tokenised examples."""
