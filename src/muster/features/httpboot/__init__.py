"""HTTPBoot: boot loaders and firmware fetch boot files over HTTP."""
