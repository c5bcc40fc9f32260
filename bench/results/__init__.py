"""The result folder: scores, the protocol they are analysed by, and where they came from."""
