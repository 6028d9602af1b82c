"""``python -m nimare_dask`` is the command line."""

from nimare_dask.cli.app import main

if __name__ == "__main__":
    main()
