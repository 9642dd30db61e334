"""Secrets that upstream publishes in its example files. A stack with one of them has a public secret.

Read in Dify's docker/.env.example and docker-compose files of the releases in `infra.catalogue.releases`.
"""

PUBLISHED_DEFAULTS: frozenset[str] = frozenset(
    {
        "difyai123456",
        "dify-sandbox",
        "sk-9f73s3ljTXVcMT3Blb3ljTqtsKiGHXVcMT3BlbkFJLK7U",
        "lYkiYYT6owG+71oLerGzA7GXCgOT++6ovaezWAjpCjf+Sjc3ZtU+qUEi",
        "QaHbTe77CtuXmsfyhR7+vRjI/+XbV1AaFy691iy+kGDv2Jvy0/eAh8Y1",
        "WVF5YThaHlkYwhGUSmCRgsX3tD5ngdN8pkih",
    }
)
