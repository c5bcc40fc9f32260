"""What comes from outside is opened here, in one way each: paths, text, parquet, images, tensors."""
