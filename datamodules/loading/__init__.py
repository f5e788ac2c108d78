"""How source files become tensors, and tensors batches: downloads, stores, samplers, loaders, augmentation."""
