"""The shapes of parallel work, and the only place that knows how Dask does them."""
