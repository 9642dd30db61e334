"""A stand-in for Dify: its HTTP contract, with PostgreSQL, Redis and a Celery worker behind it. It is not Dify."""
