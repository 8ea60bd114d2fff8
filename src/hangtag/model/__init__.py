"""The file that ships and what it says about a picture. Never imports torch; knows no data set."""
