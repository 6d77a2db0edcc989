"""Edge bundles: a model version as one file that answers without a server and without packages."""
