"""What text and tables need before a compiled step: plain NumPy, no JAX, so that Spark's executors run it as it is."""
