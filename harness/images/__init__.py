"""Images: sources, prepared datasets, batches."""
