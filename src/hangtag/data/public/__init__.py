"""Public data sets: their catalog, and finding, downloading and checking their files."""
