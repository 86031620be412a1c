"""Methods: which weights of a model are trained. Each file has `apply(model, method, dtype) -> model`."""
