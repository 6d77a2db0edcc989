"""Back-ends of the ports: in memory, SQLite, PostgreSQL, local folder, S3.

Only the composition root imports this package.
"""
