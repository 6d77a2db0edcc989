"""Other systems' words over our verbs: the MLflow REST API, and what is brought in or taken out."""
