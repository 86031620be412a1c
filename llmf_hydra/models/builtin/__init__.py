"""The models that come with the package: `smollm2` and `tiny`, built once into the cache by `store`."""
