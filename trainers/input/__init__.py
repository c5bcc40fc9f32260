"""One way to open what comes from outside: paths, text, parquet, images, tensors."""
