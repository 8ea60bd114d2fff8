"""The model file and its answers for a picture. Never imports torch; knows no data set."""
